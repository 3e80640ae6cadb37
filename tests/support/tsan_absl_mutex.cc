// Makes absl::Mutex and absl::CondVar visible to the thread sanitizer where the system's absl was
// built without it: linked into every executable of a thread-sanitized build, these definitions
// take the place of the shared library's, in gRPC as well, call the real ones and tell the
// sanitizer.
//
// Conditions are polled: the real library evaluates a waiter's condition in whichever thread holds
// the lock, which the sanitizer could not know.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/base/options.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

namespace {

#define KINO_TEXT_(x) #x
#define KINO_TEXT(x) KINO_TEXT_(x)

// The shared library's function; `member` is the mangled name behind "absl::".
template <typename Function>
Function Real(const std::string& member) {
#if ABSL_OPTION_USE_INLINE_NAMESPACE == 1
  const std::string space = KINO_TEXT(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  const std::string name = "_ZN4absl" + std::to_string(space.size()) + space + member;
#else
  const std::string name = "_ZN4absl" + member;
#endif
  void* const found = dlsym(RTLD_NEXT, name.c_str());
  if (found == nullptr) {
    std::fprintf(stderr, "absl's shared library has no '%s'\n", name.c_str());
    std::abort();
  }
  return reinterpret_cast<Function>(found);
}

bool IsOfThisExecutable(const void* code) {
  static const void* const base = [] {
    Dl_info info{};
    dladdr(reinterpret_cast<const void*>(&IsOfThisExecutable), &info);
    return info.dli_fbase;
  }();
  Dl_info info{};
  return dladdr(code, &info) != 0 && info.dli_fbase == base;
}

using VoidOfMutex = void (*)(absl::Mutex*);
using BoolOfMutex = bool (*)(absl::Mutex*);

constexpr useconds_t kPollMicroseconds = 200;

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

// The sanitizer is told only of this executable's own code. gRPC destroys locks as the last owner
// of a reference count in atomics that the sanitizer does not see. The real destructor has absl's
// own deadlock detector forget the lock, or the next lock at the same address would inherit its
// order.
Mutex::~Mutex() {
  static const auto real = Real<VoidOfMutex>("5MutexD1Ev");
  real(this);
  if (IsOfThisExecutable(__builtin_return_address(0)))
    __tsan_mutex_destroy(this, __tsan_mutex_not_static);
}

void Mutex::Lock() {
  static const auto real = Real<VoidOfMutex>("5Mutex4LockEv");
  __tsan_mutex_pre_lock(this, __tsan_mutex_not_static);
  real(this);
  __tsan_mutex_post_lock(this, __tsan_mutex_not_static, 0);
}

void Mutex::Unlock() {
  static const auto real = Real<VoidOfMutex>("5Mutex6UnlockEv");
  __tsan_mutex_pre_unlock(this, 0);
  real(this);
  __tsan_mutex_post_unlock(this, 0);
}

bool Mutex::TryLock() {
  static const auto real = Real<BoolOfMutex>("5Mutex7TryLockEv");
  __tsan_mutex_pre_lock(this, __tsan_mutex_try_lock);
  const bool is_held = real(this);
  __tsan_mutex_post_lock(
      this, is_held ? __tsan_mutex_try_lock : __tsan_mutex_try_lock | __tsan_mutex_try_lock_failed,
      0);
  return is_held;
}

void Mutex::ReaderLock() {
  static const auto real = Real<VoidOfMutex>("5Mutex10ReaderLockEv");
  __tsan_mutex_pre_lock(this, __tsan_mutex_read_lock);
  real(this);
  __tsan_mutex_post_lock(this, __tsan_mutex_read_lock, 0);
}

void Mutex::ReaderUnlock() {
  static const auto real = Real<VoidOfMutex>("5Mutex12ReaderUnlockEv");
  __tsan_mutex_pre_unlock(this, __tsan_mutex_read_lock);
  real(this);
  __tsan_mutex_post_unlock(this, __tsan_mutex_read_lock);
}

// REQUIRES, as all of the family: the lock is held, here for writing.
bool Mutex::AwaitWithDeadline(const Condition& cond, Time deadline) {
  while (!cond.Eval()) {
    if (Now() >= deadline) return false;
    Unlock();
    usleep(kPollMicroseconds);
    Lock();
  }
  return true;
}
bool Mutex::AwaitWithTimeout(const Condition& cond, Duration timeout) {
  return AwaitWithDeadline(cond, Now() + timeout);
}
void Mutex::Await(const Condition& cond) { AwaitWithDeadline(cond, InfiniteFuture()); }

bool Mutex::LockWhenWithDeadline(const Condition& cond, Time deadline) {
  Lock();
  return AwaitWithDeadline(cond, deadline);
}
bool Mutex::LockWhenWithTimeout(const Condition& cond, Duration timeout) {
  return LockWhenWithDeadline(cond, Now() + timeout);
}
void Mutex::LockWhen(const Condition& cond) { LockWhenWithDeadline(cond, InfiniteFuture()); }

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static const auto real =
      Real<bool (*)(CondVar*, Mutex*, Time)>("7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  __tsan_mutex_pre_unlock(mutex, 0);
  __tsan_mutex_post_unlock(mutex, 0);
  const bool is_late = real(this, mutex, deadline);
  __tsan_mutex_pre_lock(mutex, 0);
  __tsan_mutex_post_lock(mutex, 0, 0);
  return is_late;
}
bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  return WaitWithDeadline(mutex, Now() + timeout);
}
void CondVar::Wait(Mutex* mutex) { WaitWithDeadline(mutex, InfiniteFuture()); }

ABSL_NAMESPACE_END
}  // namespace absl
