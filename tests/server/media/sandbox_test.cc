#include "server/media/sandbox.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <vector>

#include "gtest/gtest.h"

namespace kino::media {
namespace {

constexpr SandboxLimits kLimits = {
    .memory_bytes = 256 << 20, .cpu_seconds = 5, .file_bytes = 1 << 20};

// Runs in the child of a death test: 0 when every claim holds, else the number of the one that does
// not.
int FirstBrokenClaim() {
  const int open_file = memfd_create("x", 0);
  if (!EnterSandbox(kLimits).ok()) return 1;
  const auto is_denied = [](long result) { return result == -1 && errno == EPERM; };
  if (!is_denied(socket(AF_INET, SOCK_STREAM, 0))) return 2;
  if (!is_denied(socket(AF_UNIX, SOCK_STREAM, 0))) return 3;
  if (!is_denied(open("/etc/passwd", O_RDONLY))) return 4;
  if (!is_denied(open("/dev/null", O_WRONLY))) return 5;
  char* const no_arguments[] = {nullptr};
  if (!is_denied(execve("/bin/true", no_arguments, no_arguments))) return 6;
  if (!is_denied(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0))) return 7;
  if (!is_denied(kill(getppid(), 0))) return 8;
  if (!is_denied(syscall(SYS_tgkill, getppid(), getppid(), 0))) return 15;
  if (syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), 0) != 0) return 16;
  struct stat info {};
  if (!is_denied(stat("/etc/passwd", &info))) return 17;
  if (!is_denied(fstatat(AT_FDCWD, "/etc/passwd", &info, AT_EMPTY_PATH))) return 18;
  if (!is_denied(syscall(SYS_statx, AT_FDCWD, "/etc/passwd", 0, 0, nullptr))) return 19;
  if (syscall(SYS_fstat, open_file, &info) != 0) return 20;
  if (!is_denied(syscall(SYS_ptrace, 0, 0, 0, 0))) return 9;
  const auto map = [](int protection) {
    return mmap(nullptr, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  };
  if (map(PROT_READ | PROT_EXEC) != MAP_FAILED) return 10;
  void* const page = map(PROT_READ | PROT_WRITE);
  if (page == MAP_FAILED) return 11;
  if (mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0) return 12;
  if (write(open_file, "x", 1) != 1) return 13;
  std::vector<char> heap(10 << 20, 'x');
  if (heap[5 << 20] != 'x') return 14;
  return 0;
}

TEST(SandboxTest, OnlyMemoryAndOpenFilesAreLeft) {
  EXPECT_EXIT(_exit(FirstBrokenClaim()), ::testing::ExitedWithCode(0), "");
}

#ifndef KINO_SANITIZED
TEST(SandboxTest, MemoryBeyondTheLimitIsRefused) {
  const auto allocate = [](size_t bytes) {
    if (!EnterSandbox(kLimits).ok()) return 3;
    void* const memory = std::malloc(bytes);
    return memory == nullptr ? 1 : 0;
  };
  EXPECT_EXIT(_exit(allocate(200u << 20)), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(_exit(allocate(300u << 20)), ::testing::ExitedWithCode(1), "");
}
#endif

TEST(SandboxTest, FileBeyondTheLimitEndsTheProcess) {
  const auto write_at = [](int64_t offset) {
    const int file = memfd_create("x", 0);
    if (!EnterSandbox(kLimits).ok()) return 3;
    return pwrite(file, "x", 1, offset) == 1 ? 1 : 0;
  };
  EXPECT_EXIT(_exit(write_at(kLimits.file_bytes - 1)), ::testing::ExitedWithCode(1), "");
  EXPECT_EXIT(_exit(write_at(kLimits.file_bytes)), ::testing::KilledBySignal(SIGXFSZ), "");
}

TEST(SandboxTest, EndlessWorkEndsAtTheProcessorTimeGranted) {
  const auto work_forever = [] {
    if (!EnterSandbox({.memory_bytes = 64 << 20, .cpu_seconds = 1, .file_bytes = 1}).ok()) return 3;
    std::atomic<unsigned> count{0};
    while (true) count.fetch_add(1, std::memory_order_relaxed);
  };
  EXPECT_EXIT(_exit(work_forever()), ::testing::KilledBySignal(SIGXCPU), "");
}

}  // namespace
}  // namespace kino::media
