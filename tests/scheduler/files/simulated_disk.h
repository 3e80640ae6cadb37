// A disk for tests, over a real folder: it fails the n-th call, holds calls until they are let go,
// and loses its power. It serves Kino's own files (FileLayer) and SQLite's (Vfs) alike.
//
// What a running process sees is what the real folder holds. What would be left after a power cut
// is kept beside it: of each file the content of its last sync and the writes since, of each folder
// the names of its last sync and the changes since. No real fsync is made. Thread-safe.
#pragma once

#include <sqlite3.h>

#include <cerrno>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/files/file_layer.h"
#include "scheduler/random.h"

namespace kino::scheduler {

enum class DiskCall {
  kOpen,
  kRead,
  kWrite,
  kTruncate,
  kPunch,
  kSync,
  kLock,
  kRename,
  kUnlink,
  kMakeFolder,
  kSyncFolder,
  kList,
  kFreeBytes,
  kMap,  // SQLite's shared memory
};
inline constexpr DiskCall kAllDiskCalls[] = {
    DiskCall::kOpen,      DiskCall::kRead,       DiskCall::kWrite,      DiskCall::kTruncate,
    DiskCall::kPunch,     DiskCall::kSync,       DiskCall::kLock,       DiskCall::kRename,
    DiskCall::kUnlink,    DiskCall::kMakeFolder, DiskCall::kSyncFolder, DiskCall::kList,
    DiskCall::kFreeBytes, DiskCall::kMap};
const char* DiskCallName(DiskCall call);

struct DiskFault {
  std::set<DiskCall> calls{};  // empty: every one
  std::string path_part{};     // only where the path contains it
  int count = 0;               // so many of them pass before it strikes
  int error = EIO;
  bool is_lasting = false;   // strikes until Heal, not once
  size_t bytes_written = 0;  // of a write that fails, what is written before it does
};

// What the cut leaves of what was not synced.
enum class Survival {
  kNothing,
  kEverything,
  kSome,  // by chance: sectors of writes in any order, and the first of each folder's changes
};

class SimulatedDisk final : public FileLayer {
 public:
  SimulatedDisk();
  // REQUIRES: all its files, and databases on Vfs(), are closed.
  ~SimulatedDisk() override;

  // The name of a SQLite VFS on this disk, registered for as long as the disk lives.
  const std::string& Vfs() const { return vfs_name_; }

  // --- Faults. One is planned at a time. ---
  void PlanFault(DiskFault fault);
  void Heal();
  int faults_struck() const;  // since PlanFault
  int64_t calls(DiskCall call) const;

  // --- Slowness. ---
  // From now on, calls of that kind on such paths wait; where a name is given, those of threads of
  // that name.
  void Hold(DiskCall call, std::string path_part, std::string thread = "");
  // False where no call has come for so long that none will.
  bool WaitUntilHeld();
  // Lets the held calls go on and holds none any more.
  void Release();

  // --- Power. Follows nothing until TrackPower, which takes what the folder holds for durable. ---
  void TrackPower(const std::string& folder);
  // After `count` more calls that change something, every call fails.
  void CutPowerAfter(int64_t count);
  bool is_cut() const;
  // Calls that changed something, since TrackPower.
  int64_t changes() const;
  // Of each sync of a file or folder since TrackPower, the number of changes until then, itself
  // among them.
  std::vector<int64_t> syncs() const;
  // The syncs numbered first..last (from 1), where the path ends so, say that they are done and are
  // not.
  void OmitSyncs(int64_t first, int64_t last, std::string path_end = "");
  // Cuts the power unless it is cut, writes into the real folder what is left, and works again,
  // without faults, holds and omitted syncs. REQUIRES: all files are closed.
  void Restore(Survival survival, RandomSource& random);

  // --- FileLayer ---
  int Open(const std::string& path, OpenMode mode, std::unique_ptr<File>& file) override;
  int Rename(const std::string& from, const std::string& to) override;
  int Unlink(const std::string& path) override;
  int MakeFolder(const std::string& path) override;
  int SyncFolder(const std::string& path) override;
  int List(const std::string& path, std::vector<std::string>& names) override;
  int FreeBytes(const std::string& path, int64_t& bytes) override;

 private:
  friend class SimulatedFile;
  friend struct DiskVfs;

  struct Pending {
    bool is_truncation = false;
    int64_t offset = 0;  // of a truncation: the size
    std::string data{};
  };
  // One file or folder, whatever it is called.
  struct Node {
    bool is_folder = false;
    std::string synced{};
    std::vector<Pending> pending{};
  };
  using NodePtr = std::shared_ptr<Node>;
  struct NameChange {
    std::string path{};
    NodePtr node{};  // null: the name goes
  };

  // Waits where the call is held, counts it, and gives the errno of a fault, else 0.
  int Begin(DiskCall call, const std::string& path, size_t* bytes_written = nullptr);
  // The node of a path that was opened or made; null where nothing is followed.
  NodePtr NoteOpened(const std::string& path, bool is_new, bool is_folder = false);
  void NoteWritten(const NodePtr& node, std::string_view data, int64_t offset);
  void NoteTruncated(const NodePtr& node, int64_t size);
  void NoteSynced(const NodePtr& node, const std::string& path);
  void NoteFolderSynced(const std::string& path);
  void NoteUnlinked(const std::string& path);
  void NoteRenamed(const std::string& from, const std::string& to);
  bool IsFollowed(const std::string& path) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool CountSync(const std::string& path) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Apply(const Pending& change, std::string& content);

  std::string vfs_name_;
  std::unique_ptr<sqlite3_vfs> vfs_;
  FileLayer& real_ = RealFiles();

  mutable absl::Mutex mutex_;
  bool has_fault_ ABSL_GUARDED_BY(mutex_) = false;
  DiskFault fault_ ABSL_GUARDED_BY(mutex_);
  int struck_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<DiskCall, int64_t> calls_ ABSL_GUARDED_BY(mutex_);

  bool is_holding_ ABSL_GUARDED_BY(mutex_) = false;
  DiskCall held_call_ ABSL_GUARDED_BY(mutex_) = DiskCall::kSync;
  std::string held_path_ ABSL_GUARDED_BY(mutex_);
  std::string held_thread_ ABSL_GUARDED_BY(mutex_);
  int held_ ABSL_GUARDED_BY(mutex_) = 0;

  std::string folder_ ABSL_GUARDED_BY(mutex_);  // empty: nothing is followed
  bool is_cut_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t cut_at_ ABSL_GUARDED_BY(mutex_) = INT64_MAX;
  std::vector<int64_t> syncs_ ABSL_GUARDED_BY(mutex_);
  int64_t first_omitted_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t last_omitted_ ABSL_GUARDED_BY(mutex_) = -1;
  std::string omitted_path_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, NodePtr> names_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, NodePtr> synced_names_ ABSL_GUARDED_BY(mutex_);
  std::vector<NameChange> name_changes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kino::scheduler
