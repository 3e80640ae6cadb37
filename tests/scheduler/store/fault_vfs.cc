#include "tests/scheduler/store/fault_vfs.h"

#include <sqlite3.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace kino::scheduler {
namespace {

struct State {
  absl::Mutex mutex;
  FaultPlan plan ABSL_GUARDED_BY(mutex);
  int struck ABSL_GUARDED_BY(mutex) = 0;
};
State& TheState() {
  static State* const state = new State;
  return *state;
}

int Strike(bool is_sync) {
  State& state = TheState();
  absl::MutexLock lock(&state.mutex);
  FaultPlan& plan = state.plan;
  if (plan.fault == Fault::kNone || is_sync != (plan.fault == Fault::kSyncError)) return SQLITE_OK;
  if (plan.count > 0) {
    --plan.count;
    return SQLITE_OK;
  }
  ++state.struck;
  const Fault fault = plan.fault;
  if (!plan.is_lasting) plan.fault = Fault::kNone;
  switch (fault) {
    case Fault::kDiskFull:
      return SQLITE_FULL;
    case Fault::kWriteError:
      return SQLITE_IOERR_WRITE;
    default:
      return SQLITE_IOERR_FSYNC;
  }
}

struct FaultFile {
  sqlite3_file base;
  sqlite3_file* real;  // lies right behind this
};
sqlite3_file* Real(sqlite3_file* file) { return reinterpret_cast<FaultFile*>(file)->real; }

const sqlite3_io_methods kMethods = {
    .iVersion = 2,
    .xClose = [](sqlite3_file* f) { return Real(f)->pMethods->xClose(Real(f)); },
    .xRead = [](sqlite3_file* f, void* data, int size,
                sqlite3_int64 at) { return Real(f)->pMethods->xRead(Real(f), data, size, at); },
    .xWrite =
        [](sqlite3_file* f, const void* data, int size, sqlite3_int64 at) {
          if (const int code = Strike(false); code != SQLITE_OK) return code;
          return Real(f)->pMethods->xWrite(Real(f), data, size, at);
        },
    .xTruncate =
        [](sqlite3_file* f, sqlite3_int64 size) {
          if (const int code = Strike(false); code != SQLITE_OK) return code;
          return Real(f)->pMethods->xTruncate(Real(f), size);
        },
    // Nothing here cuts the power, so a sync that does not fail need not be done; that saves
    // minutes.
    .xSync = [](sqlite3_file*, int) { return Strike(true); },
    .xFileSize = [](sqlite3_file* f,
                    sqlite3_int64* size) { return Real(f)->pMethods->xFileSize(Real(f), size); },
    .xLock = [](sqlite3_file* f, int lock) { return Real(f)->pMethods->xLock(Real(f), lock); },
    .xUnlock = [](sqlite3_file* f, int lock) { return Real(f)->pMethods->xUnlock(Real(f), lock); },
    .xCheckReservedLock =
        [](sqlite3_file* f, int* out) {
          return Real(f)->pMethods->xCheckReservedLock(Real(f), out);
        },
    .xFileControl = [](sqlite3_file* f, int op,
                       void* arg) { return Real(f)->pMethods->xFileControl(Real(f), op, arg); },
    .xSectorSize = [](sqlite3_file* f) { return Real(f)->pMethods->xSectorSize(Real(f)); },
    .xDeviceCharacteristics =
        [](sqlite3_file* f) { return Real(f)->pMethods->xDeviceCharacteristics(Real(f)); },
    .xShmMap =
        [](sqlite3_file* f, int page, int size, int extend, void volatile** out) {
          return Real(f)->pMethods->xShmMap(Real(f), page, size, extend, out);
        },
    .xShmLock = [](sqlite3_file* f, int offset, int n,
                   int flags) { return Real(f)->pMethods->xShmLock(Real(f), offset, n, flags); },
    .xShmBarrier = [](sqlite3_file* f) { Real(f)->pMethods->xShmBarrier(Real(f)); },
    .xShmUnmap = [](sqlite3_file* f,
                    int remove) { return Real(f)->pMethods->xShmUnmap(Real(f), remove); },
    .xFetch = nullptr,
    .xUnfetch = nullptr,
};

int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  auto* const under = static_cast<sqlite3_vfs*>(vfs->pAppData);
  auto* const wrapped = reinterpret_cast<FaultFile*>(file);
  wrapped->real = reinterpret_cast<sqlite3_file*>(wrapped + 1);
  const int code = under->xOpen(under, name, wrapped->real, flags, out_flags);
  wrapped->base.pMethods = wrapped->real->pMethods == nullptr ? nullptr : &kMethods;
  return code;
}

}  // namespace

std::string FaultVfs() {
  static sqlite3_vfs* const vfs = [] {
    sqlite3_vfs* const under = sqlite3_vfs_find(nullptr);
    auto* const made = new sqlite3_vfs(*under);
    made->zName = "kino-fault";
    made->pNext = nullptr;
    made->pAppData = under;
    made->szOsFile = static_cast<int>(sizeof(FaultFile)) + under->szOsFile;
    made->xOpen = Open;
    sqlite3_vfs_register(made, 0);
    return made;
  }();
  return vfs->zName;
}

const char* FaultName(Fault fault) {
  switch (fault) {
    case Fault::kNone:
      return "None";
    case Fault::kDiskFull:
      return "DiskFull";
    case Fault::kWriteError:
      return "WriteError";
    case Fault::kSyncError:
      return "SyncError";
  }
  return "Unknown";
}

void PlanFault(const FaultPlan& plan) {
  State& state = TheState();
  absl::MutexLock lock(&state.mutex);
  state.plan = plan;
  state.struck = 0;
}

void HealFaults() {
  State& state = TheState();
  absl::MutexLock lock(&state.mutex);
  state.plan.fault = Fault::kNone;
}

int FaultsStruck() {
  State& state = TheState();
  absl::MutexLock lock(&state.mutex);
  return state.struck;
}

}  // namespace kino::scheduler
