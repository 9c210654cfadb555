"""Clients that others wrote talk to the simulated hands: what they understand is the protocol, not our reading of it.

Each test is skipped where its client is not installed (dynamixel-sdk, minimalmodbus, python-can).
"""

import pytest

from beingh0_edge.firmware_bridge import start_simulator


def settles(call, expected):
    """Whether `call` returns `expected` within a few tries: this client gives up after 34 ms of wall-clock time,
    polling, which a busy machine exceeds now and then."""
    return any(call() == expected for _ in range(20))


def test_the_makers_dynamixel_client_works_with_the_simulated_servos():
    sdk = pytest.importorskip("dynamixel_sdk")
    with start_simulator("sim:leap") as simulator:
        port = sdk.PortHandler(simulator.port)
        packets = sdk.PacketHandler(2.0)
        assert port.openPort()
        try:
            assert port.setBaudRate(4_000_000)
            assert settles(lambda: packets.ping(port, 3), (1240, 0, 0))
            assert packets.ping(port, 77)[1] == sdk.COMM_RX_TIMEOUT
            assert settles(lambda: packets.write1ByteTxRx(port, 3, 64, 1), (0, 0))
            # EEPROM with torque on: access error.
            assert settles(lambda: packets.write1ByteTxRx(port, 3, 11, 5), (0, 7))
            writer = sdk.GroupSyncWrite(port, packets, 116, 4)
            for number in range(16):
                writer.addParam(number, (2048 + number).to_bytes(4, "little"))
            assert writer.txPacket() == 0
            for fast in (False, True):
                reader = sdk.GroupSyncRead(port, packets, 116, 4)
                for number in range(16):
                    reader.addParam(number)
                assert settles(reader.fastSyncRead if fast else reader.txRxPacket, 0)
                assert [reader.getData(n, 116, 4) for n in range(16)] == [2048 + n for n in range(16)]
            assert settles(lambda: packets.reboot(port, 3), (0, 0))
        finally:
            port.closePort()


def test_a_modbus_client_works_with_the_simulated_hand():
    minimalmodbus = pytest.importorskip("minimalmodbus")
    with start_simulator("sim:inspire_rh56_modbus?latency_s=0") as simulator:
        hand = minimalmodbus.Instrument(simulator.port, 1)
        hand.serial.baudrate = 115200
        hand.serial.timeout = 0.5
        try:
            assert hand.read_registers(1546, 6) == [1000] * 6
            hand.write_registers(1522, [500] * 6)
            assert hand.read_registers(1522, 6) == [500] * 6
            hand.write_register(1004, 1, functioncode=6)
            with pytest.raises(minimalmodbus.IllegalRequestError):
                hand.write_registers(1546, [0] * 6)
            other = minimalmodbus.Instrument(simulator.port, 2)
            other.serial.timeout = 0.1
            with pytest.raises(minimalmodbus.NoResponseError):
                other.read_register(1546)
        finally:
            hand.serial.close()


def test_a_can_client_works_with_the_simulated_hand_behind_its_adapter():
    can = pytest.importorskip("can")
    with start_simulator("sim:inspire_rh56_can") as simulator:
        path = simulator.port.removeprefix("slcan:")
        with can.Bus(interface="slcan", channel=path, bitrate=1_000_000, sleep_after_open=0.1) as bus:
            bus.send(can.Message(arbitration_id=0x01840001, data=[2], is_extended_id=True))
            reply = bus.recv(1.0)
            # The index finger of an open hand: 1000.
            assert (reply.arbitration_id, bytes(reply.data)) == (0x01840001, b"\xe8\x03")
            bus.send(can.Message(arbitration_id=0x05750001, data=[0x58, 0x02], is_extended_id=True))
            assert bus.recv(1.0).arbitration_id == 0x05750001
