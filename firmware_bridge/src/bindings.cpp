// The Python face of the bridge; each bind_*.cpp checks arguments, releases the GIL and calls. No logic.
#include "bindings.hpp"

NB_MODULE(_bridge, m) {
  m.doc() = "Codecs, limits, states and the real-time loop of the firmware bridge.";
  bridge::bind_core(m);
  bridge::bind_controller(m);
  bridge::bind_loop(m);
  bridge::bind_drivers(m);
  bridge::bind_inspire(m);
  bridge::bind_brainco(m);
  bridge::bind_inspire_can(m);
  bridge::bind_modbus(m);
  bridge::bind_rohand(m);
  bridge::bind_slcan(m);
  bridge::bind_dynamixel(m);
  bridge::bind_ability(m);
  bridge::bind_linkerhand(m);
  bridge::bind_allegro(m);
}
