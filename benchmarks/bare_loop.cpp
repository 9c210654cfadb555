// What the machine itself does to a loop: sleeps to absolute deadlines at a real-time priority and does nothing else.
// Runs until its input ends, then prints JSON: how late it was woken, in milliseconds.
//   c++ -O2 bare_loop.cpp -o bare_loop && sleep 10 | ./bare_loop 100 70
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int count, char** arguments) {
  if (count != 3) return std::fprintf(stderr, "usage: %s RATE_HZ PRIORITY\n", arguments[0]), 2;
  const long period = static_cast<long>(1e9 / std::atof(arguments[1]));
  sched_param parameter{};
  parameter.sched_priority = std::atoi(arguments[2]);
  const bool realtime = sched_setscheduler(0, SCHED_FIFO, &parameter) == 0;
  prctl(PR_SET_TIMERSLACK, 1UL);
  std::vector<float> late_ms;
  late_ms.reserve(1 << 22);
  mlockall(MCL_CURRENT | MCL_ONFAULT);
  timespec at{};
  clock_gettime(CLOCK_MONOTONIC, &at);
  pollfd input{0, POLLIN, 0};
  do {
    at.tv_nsec += period;
    at.tv_sec += at.tv_nsec / 1'000'000'000;
    at.tv_nsec %= 1'000'000'000;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    late_ms.push_back(static_cast<float>(1e3 * (now.tv_sec - at.tv_sec) + 1e-6 * (now.tv_nsec - at.tv_nsec)));
    if (late_ms.back() * 1e6 > period) at = now;
  } while (poll(&input, 1, 0) == 0 && late_ms.size() < late_ms.capacity());
  std::sort(late_ms.begin(), late_ms.end());
  const auto part = [&](double share) { return late_ms[static_cast<std::size_t>(share * (late_ms.size() - 1))]; };
  std::printf("{\"cycles\": %zu, \"realtime\": %s, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"p999_ms\": %.3f, \"max_ms\": %.3f}\n",
              late_ms.size(), realtime ? "true" : "false", part(0.5), part(0.99), part(0.999), part(1.0));
  return 0;
}
