// Apart from serial.cpp because <asm/termbits.h> and <termios.h> define the same names.
#include <asm/termbits.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace bridge {

int set_any_baud(int fd, int baud) {
  struct termios2 settings {};
  if (ioctl(fd, TCGETS2, &settings) != 0) return errno;
  settings.c_cflag &= ~(CBAUD | (CBAUD << IBSHIFT));
  settings.c_cflag |= BOTHER | (BOTHER << IBSHIFT);
  settings.c_ispeed = static_cast<unsigned>(baud);
  settings.c_ospeed = static_cast<unsigned>(baud);
  return ioctl(fd, TCSETS2, &settings) == 0 ? 0 : errno;
}

}  // namespace bridge
