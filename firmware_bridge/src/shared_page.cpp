#include "shared_page.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>

#include "io/stream.hpp"

namespace bridge {
namespace {

SharedPage* map(int fd, int flags, const std::string& name) {
  void* memory = mmap(nullptr, sizeof(SharedPage), PROT_READ | PROT_WRITE, flags | MAP_POPULATE, fd, 0);
  const int error = errno;
  if (fd >= 0) close(fd);
  if (memory == MAP_FAILED) throw PortError(error, name + ": " + std::strerror(error));
  return static_cast<SharedPage*>(memory);
}

}  // namespace

void SharedPage::ask_estop() {
  estop.store(1, std::memory_order_release);
  syscall(SYS_futex, &estop, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

void MappedPage::Unmap::operator()(SharedPage* page) const { munmap(page, sizeof(SharedPage)); }

MappedPage MappedPage::own() {
  return MappedPage(new (map(-1, MAP_PRIVATE | MAP_ANONYMOUS, "memory of the loop")) SharedPage);
}

MappedPage MappedPage::create(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0 || posix_fallocate(fd, 0, sizeof(SharedPage)) != 0) {
    const int error = fd < 0 ? errno : ENOSPC;
    if (fd >= 0) {
      close(fd);
      unlink(path.c_str());
    }
    throw PortError(error, path + ": " + std::strerror(error));
  }
  return MappedPage(new (map(fd, MAP_SHARED, path)) SharedPage);
}

MappedPage MappedPage::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) throw PortError(errno, path + ": " + std::strerror(errno));
  struct stat status {};
  if (fstat(fd, &status) != 0 || status.st_size != static_cast<off_t>(sizeof(SharedPage))) {
    close(fd);
    throw PortError(EPROTO, path + ": is not a page of this version of the bridge");
  }
  MappedPage page(map(fd, MAP_SHARED, path));
  if (page->magic != SharedPage::kMagic || page->layout != SharedPage::kLayout || page->bytes != sizeof(SharedPage) ||
      page->joints < 1 || page->joints > kMaxJoints)
    throw PortError(EPROTO, path + ": is not a page of this version of the bridge");
  return page;
}

}  // namespace bridge
