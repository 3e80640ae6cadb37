#include "scheduler/fault_point.h"

#ifdef KINO_WITH_FAULT_POINTS

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace kino::scheduler {

void ReachFaultPoint(const char* name) {
  static const char* const folder = std::getenv("KINO_FAULT_POINTS");
  if (folder == nullptr) return;
  const std::string path = std::string(folder) + "/" + name;
  std::string action;
  std::ifstream(path) >> action;
  // Whoever takes it away does it.
  if (action.empty() || unlink(path.c_str()) != 0) return;
  if (action == "abort") std::abort();
  raise(action == "stop" ? SIGSTOP : SIGKILL);
}

}  // namespace kino::scheduler

#endif
