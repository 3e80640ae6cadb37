#include "server/media/sandbox.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"

namespace kino::media {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "kino-media's system call filter knows x86-64 and AArch64"
#endif

// What the decoders, the allocator and abort() use, found with strace over the test corpus. Not
// newfstatat, which looks at any path.
constexpr int kAllowedCalls[] = {
    SYS_read,
    SYS_pread64,
    SYS_write,
    SYS_pwrite64,
    SYS_lseek,
    SYS_fstat,
    SYS_close,
    SYS_ftruncate,
    SYS_munmap,
    SYS_mremap,
    SYS_brk,
    SYS_madvise,
    SYS_futex,
    SYS_exit,
    SYS_exit_group,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_getpid,
    SYS_gettid,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_gettimeofday,
    SYS_getrandom,
    SYS_sysinfo,
    SYS_sched_yield,
    SYS_restart_syscall,
    SYS_sched_getaffinity,
#if defined(__SANITIZE_ADDRESS__)
    SYS_sigaltstack,  // the sanitizer asks for it before a function that does not return
#endif
};

// These take a protection as their third argument; making memory executable is denied.
constexpr int kMappingCalls[] = {SYS_mmap, SYS_mprotect};

absl::Status Failure(std::string_view step) {
  return absl::InternalError(absl::StrCat("sandbox: ", absl::string_view(step.data(), step.size()),
                                          ": ", std::strerror(errno)));
}

// The pages the program's own libraries take already.
int64_t AddressSpaceBytes() {
  int64_t pages = 0;
  if (std::FILE* file = std::fopen("/proc/self/statm", "re")) {
    if (std::fscanf(file, "%ld", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return pages * sysconf(_SC_PAGESIZE);
}

absl::Status SetLimit(int resource, std::string_view name, uint64_t soft, uint64_t hard) {
  const rlimit limit = {soft, hard};
  return setrlimit(static_cast<__rlimit_resource_t>(resource), &limit) == 0 ? absl::OkStatus()
                                                                            : Failure(name);
}

std::vector<sock_filter> MakeFilter() {
  const auto load = [](size_t offset) {
    return sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
  };
  const auto give = [](uint32_t verdict) { return sock_filter BPF_STMT(BPF_RET | BPF_K, verdict); };
  const auto unless = [](uint32_t value, uint8_t skip) {
    return sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip);
  };
  constexpr uint32_t kDeny = SECCOMP_RET_ERRNO | EPERM;
  std::vector<sock_filter> filter = {
      load(offsetof(seccomp_data, arch)),
      unless(kArchitecture, 1),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0),
      give(SECCOMP_RET_KILL_PROCESS),  // another architecture's numbers mean other calls
      load(offsetof(seccomp_data, nr)),
  };
  for (const int call : kAllowedCalls) {
    filter.push_back(unless(static_cast<uint32_t>(call), 1));
    filter.push_back(give(SECCOMP_RET_ALLOW));
  }
  // abort() signals itself; nobody else is to be signalled.
  filter.push_back(unless(SYS_tgkill, 4));
  filter.push_back(load(offsetof(seccomp_data, args[0])));
  filter.push_back(unless(static_cast<uint32_t>(getpid()), 1));
  filter.push_back(give(SECCOMP_RET_ALLOW));
  filter.push_back(give(kDeny));
  for (const int call : kMappingCalls) {
    filter.push_back(unless(static_cast<uint32_t>(call), 4));
    filter.push_back(load(offsetof(seccomp_data, args[2])));  // the low half, little-endian
    filter.push_back(sock_filter BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0));
    filter.push_back(give(SECCOMP_RET_ALLOW));
    filter.push_back(give(kDeny));
  }
  filter.push_back(give(kDeny));
  return filter;
}

}  // namespace

absl::Status EnterSandbox(const SandboxLimits& limits) {
  struct Limit {
    int resource;
    std::string_view name;
    uint64_t soft, hard;
  };
  const auto cpu = static_cast<uint64_t>(limits.cpu_seconds);
  [[maybe_unused]] const auto memory =
      static_cast<uint64_t>(AddressSpaceBytes() + limits.memory_bytes);
  const auto file = static_cast<uint64_t>(limits.file_bytes);
  for (const Limit& limit : {
           Limit{RLIMIT_CPU, "processor time", cpu, cpu + 1},
           Limit{RLIMIT_FSIZE, "file size", file, file},
           Limit{RLIMIT_NOFILE, "open files", 16, 16},
           Limit{RLIMIT_CORE, "core files", 0, 0},
#ifndef KINO_SANITIZED
           // A sanitizer's shadow memory alone is terabytes of addresses.
           Limit{RLIMIT_AS, "address space", memory, memory},
#endif
       }) {
    if (const absl::Status status = SetLimit(limit.resource, limit.name, limit.soft, limit.hard);
        !status.ok()) {
      return status;
    }
  }
  // Either works with or without privileges; where neither does, the filter below still denies
  // socket().
  if (unshare(CLONE_NEWNET) != 0) static_cast<void>(unshare(CLONE_NEWUSER | CLONE_NEWNET));
  // Behind unshare: new privileges, if only in a namespace, take the signal back.
  if (limits.parent != 0) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return Failure("end with the parent");
    if (getppid() != limits.parent) return absl::CancelledError("the parent has ended");
  }
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return Failure("not dumpable");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return Failure("no new privileges");
  std::vector<sock_filter> filter = MakeFilter();
  const sock_fprog program = {static_cast<unsigned short>(filter.size()), filter.data()};
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) {
    return Failure("system call filter");
  }
  return absl::OkStatus();
}

}  // namespace kino::media
