// Makes OpenMP wait by sleeping in the executable that this is linked into:
// cmake/Dependencies.cmake links it into each one that links LibTorch. Beside a busy process,
// threads that wait by spinning take the cores from those they wait for.
//
// libgomp reads its settings in its constructor, and no later call changes them. So the variable is
// there before: the process executes itself once more with it, before any library's constructor has
// run. Process id, arguments, descriptors and signals stay. A setting of the user's own wins, which
// also is why this happens once. Where it cannot be done, the process goes on as it is.
#include <elf.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <cstddef>

namespace {

char passive[] = "OMP_WAIT_POLICY=passive";

bool Sets(const char* entry, const char* name) {
  const size_t length = strlen(name);
  return strncmp(entry, name, length) == 0 && entry[length] == '=';
}

// Runs before libc has its environment: uses what it is given and system calls only.
void WaitPassively(int, char** argv, char** env) {
  size_t count = 0;
  for (; env[count] != nullptr; ++count) {
    if (Sets(env[count], "OMP_WAIT_POLICY") || Sets(env[count], "GOMP_SPINCOUNT")) return;
  }
  // The path as it was executed, so that the process keeps its name; /proc may be missing.
  const auto* self = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  constexpr size_t kMaxCount = 100000;  // of pointers on the stack
  if (self == nullptr || getauxval(AT_SECURE) != 0 || count > kMaxCount) return;
  auto** const with_passive = static_cast<char**>(__builtin_alloca((count + 2) * sizeof(char*)));
  memcpy(with_passive, env, count * sizeof(char*));
  with_passive[count] = passive;
  with_passive[count + 1] = nullptr;
  execve(self, argv, with_passive);
}

__attribute__((section(".preinit_array"),
               used)) void (*const before_constructors)(int, char**, char**) = WaitPassively;

}  // namespace
