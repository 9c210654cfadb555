"""Clients that others wrote talk to the simulated hands: what they understand is the protocol, not our reading of it.

Each test is skipped where its client is not installed: `pip install ".[clients]"` brings them all.
"""

import asyncio
import subprocess
import sys
import textwrap
import time

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


def test_a_modbus_client_works_with_the_simulated_rohand():
    minimalmodbus = pytest.importorskip("minimalmodbus")
    with start_simulator("sim:rohand") as simulator:
        hand = minimalmodbus.Instrument(simulator.port, 2)
        hand.serial.baudrate = 115200
        hand.serial.timeout = 0.5
        try:
            assert hand.read_register(1000) >> 8 == 1
            hand.write_registers(1135, [0, 65535, 32768, 0, 0, 0])
            time.sleep(1.5)
            assert hand.read_registers(1145, 6) == [0, 65535, 32768, 0, 0, 0]
            assert hand.read_registers(1085, 6) == [2] * 6
            with pytest.raises(minimalmodbus.IllegalRequestError):
                hand.write_register(1014, 1, functioncode=6)
        finally:
            hand.serial.close()


def test_the_makers_library_works_with_the_simulated_revo2():
    sdk = pytest.importorskip("bc_stark_sdk.main_mod")
    positions = [100, 200, 300, 400, 500, 1000]

    async def drive(port):
        hand = await sdk.modbus_open(port, sdk.Baudrate.Baud460800)
        try:
            hand.set_hardware_type(0x7F, sdk.StarkHardwareType.Revo2Basic)
            await hand.set_finger_positions_and_speeds(0x7F, positions, [1000] * 6)
            await asyncio.sleep(1.0)
            return await hand.get_motor_status(0x7F)
        finally:
            sdk.modbus_close(hand)

    with start_simulator("sim:brainco_revo2") as simulator:
        status = asyncio.run(drive(simulator.port))
    assert list(status.positions) == positions
    assert list(status.states) == [sdk.MotorState.Idle] * 6


def test_the_makers_client_works_with_the_simulated_ability_hand(tmp_path):
    pytest.importorskip("ah_wrapper.ah_api", exc_type=ImportError)
    # A process of its own: the client writes a configuration and a log where it stands.
    program = textwrap.dedent("""
        import sys, time
        from ah_wrapper.ah_serial_client import AHSerialClient
        client = AHSerialClient(port=sys.argv[1], baud_rate=460800, reply_mode=2, rate_hz=50)
        try:
            end = time.monotonic() + 20
            wanted = [30.0, 30.0, 30.0, 30.0, 20.0, -40.0]
            while time.monotonic() < end:
                client.set_position(wanted, reply_mode=2)
                time.sleep(0.05)
                got = client.hand.get_position()
                if got is not None and max(abs(g - w) for g, w in zip(got, wanted)) < 0.5:
                    print("there", client.hand.get_current() is not None)
                    break
        finally:
            client.close()
    """)
    with start_simulator("sim:ability_hand") as simulator:
        done = subprocess.run([sys.executable, "-c", program, simulator.port], cwd=tmp_path, capture_output=True,
                              text=True, timeout=60, check=False)
    assert "there True" in done.stdout, done.stdout + done.stderr


def test_a_can_client_works_with_the_simulated_linkerhand_and_allegro():
    can = pytest.importorskip("can")

    def bus(simulator):
        return can.Bus(interface="slcan", channel=simulator.port.removeprefix("slcan:"), bitrate=1_000_000,
                       sleep_after_open=0.1)

    with start_simulator("sim:linkerhand_l10") as simulator, bus(simulator) as wire:
        wire.send(can.Message(arbitration_id=0x27, data=[0x01], is_extended_id=False))
        reply = wire.recv(1.0)
        assert (reply.arbitration_id, bytes(reply.data)) == (0x27, b"\x01" + b"\xff" * 6)
        wire.send(can.Message(arbitration_id=0x27, data=[0x04, 0x80, 0x80, 0x80, 0x80], is_extended_id=False))
        assert bytes(wire.recv(1.0).data)[:1] == b"\x04"
    with start_simulator("sim:allegro_v5") as simulator, bus(simulator) as wire:
        wire.send(can.Message(arbitration_id=0x220, is_remote_frame=True, is_extended_id=False))
        assert bytes(wire.recv(1.0).data) == b"V5AR0042"
        wire.send(can.Message(arbitration_id=0x204, data=[3, 0, 0, 0, 0, 0], is_extended_id=False))
        wire.send(can.Message(arbitration_id=0x100, is_extended_id=False))
        assert [wire.recv(1.0).arbitration_id for _ in range(8)] == [0x080, 0x084, 0x088, 0x08C] * 2
    # The maker's library's own frame (positions 100, 200, 300, 400, 500, 1000) inside CAN-FD.
    request = bytes.fromhex("7F 10 04 2E 00 03 06 14 0A 28 1E 64 32 63 37 00")
    with start_simulator("sim:brainco_revo2_canfd") as simulator, bus(simulator) as wire:
        wire.send(can.Message(arbitration_id=0x7F010F, data=request, is_fd=True, bitrate_switch=True,
                              is_extended_id=True))
        reply = wire.recv(1.0)
        assert reply.is_fd
        assert bytes(reply.data) == bytes.fromhex("7F 10 04 2E 00 03 EB 2F")
