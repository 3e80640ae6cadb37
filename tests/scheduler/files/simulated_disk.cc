#include "tests/scheduler/files/simulated_disk.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <utility>

namespace kino::scheduler {

namespace {

constexpr size_t kSector = 512;

bool Changes(DiskCall call) {
  switch (call) {
    case DiskCall::kWrite:
    case DiskCall::kTruncate:
    case DiskCall::kPunch:
    case DiskCall::kSync:
    case DiskCall::kRename:
    case DiskCall::kUnlink:
    case DiskCall::kMakeFolder:
    case DiskCall::kSyncFolder:
      return true;
    default:
      return false;
  }
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string ThreadName() {
  char name[16] = "";
  pthread_getname_np(pthread_self(), name, sizeof(name));
  return name;
}

std::string ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

const char* DiskCallName(DiskCall call) {
  switch (call) {
    case DiskCall::kOpen:
      return "Open";
    case DiskCall::kRead:
      return "Read";
    case DiskCall::kWrite:
      return "Write";
    case DiskCall::kTruncate:
      return "Truncate";
    case DiskCall::kPunch:
      return "Punch";
    case DiskCall::kSync:
      return "Sync";
    case DiskCall::kLock:
      return "Lock";
    case DiskCall::kRename:
      return "Rename";
    case DiskCall::kUnlink:
      return "Unlink";
    case DiskCall::kMakeFolder:
      return "MakeFolder";
    case DiskCall::kSyncFolder:
      return "SyncFolder";
    case DiskCall::kList:
      return "List";
    case DiskCall::kFreeBytes:
      return "FreeBytes";
    case DiskCall::kMap:
      return "Map";
  }
  return "Unknown";
}

// --- SQLite's files. ---

struct DiskVfs {
  // Of the VFS: who it belongs to, and the VFS that does the work.
  struct Owner {
    SimulatedDisk* disk;
    sqlite3_vfs* under;
  };
  struct Opened {
    SimulatedDisk* disk;
    std::string path;  // empty: a temporary file
    SimulatedDisk::NodePtr node;
    // SQLite syncs the folder at the first sync of a log or journal that it has made.
    bool syncs_folder;
  };
  struct DiskFile {
    sqlite3_file base;
    sqlite3_file* real;  // lies right behind this
    Opened* opened;
  };
  static DiskFile& Of(sqlite3_file* file) { return *reinterpret_cast<DiskFile*>(file); }
  static sqlite3_file* Real(sqlite3_file* file) { return Of(file).real; }
  static Owner& OwnerOf(sqlite3_vfs* vfs) { return *static_cast<Owner*>(vfs->pAppData); }

  static int Close(sqlite3_file* file) {
    delete std::exchange(Of(file).opened, nullptr);
    return Real(file)->pMethods->xClose(Real(file));
  }
  static int Read(sqlite3_file* file, void* data, int size, sqlite3_int64 at) {
    const Opened& opened = *Of(file).opened;
    if (opened.disk->Begin(DiskCall::kRead, opened.path) != 0) return SQLITE_IOERR_READ;
    return Real(file)->pMethods->xRead(Real(file), data, size, at);
  }
  static int Write(sqlite3_file* file, const void* data, int size, sqlite3_int64 at) {
    const Opened& opened = *Of(file).opened;
    size_t written = 0;
    const int error = opened.disk->Begin(DiskCall::kWrite, opened.path, &written);
    const int length = error == 0 ? size : std::min(size, static_cast<int>(written));
    int code = SQLITE_OK;
    if (length > 0) code = Real(file)->pMethods->xWrite(Real(file), data, length, at);
    if (length > 0 && code == SQLITE_OK) {
      opened.disk->NoteWritten(opened.node,
                               {static_cast<const char*>(data), static_cast<size_t>(length)}, at);
    }
    if (error == 0) return code;
    return error == ENOSPC ? SQLITE_FULL : SQLITE_IOERR_WRITE;
  }
  static int Truncate(sqlite3_file* file, sqlite3_int64 size) {
    const Opened& opened = *Of(file).opened;
    const int error = opened.disk->Begin(DiskCall::kTruncate, opened.path);
    if (error != 0) return error == ENOSPC ? SQLITE_FULL : SQLITE_IOERR_TRUNCATE;
    const int code = Real(file)->pMethods->xTruncate(Real(file), size);
    if (code == SQLITE_OK) opened.disk->NoteTruncated(opened.node, size);
    return code;
  }
  static int Sync(sqlite3_file* file, int) {
    Opened& opened = *Of(file).opened;
    if (opened.disk->Begin(DiskCall::kSync, opened.path) != 0) return SQLITE_IOERR_FSYNC;
    opened.disk->NoteSynced(opened.node, opened.path);
    if (opened.syncs_folder) {
      if (opened.disk->Begin(DiskCall::kSyncFolder, opened.path) != 0)
        return SQLITE_IOERR_DIR_FSYNC;
      opened.disk->NoteFolderSynced(FolderOf(opened.path));
      opened.syncs_folder = false;
    }
    return SQLITE_OK;
  }
  static int ShmMap(sqlite3_file* file, int page, int size, int extend, void volatile** out) {
    const Opened& opened = *Of(file).opened;
    if (opened.disk->Begin(DiskCall::kMap, opened.path) != 0) return SQLITE_IOERR_SHMMAP;
    return Real(file)->pMethods->xShmMap(Real(file), page, size, extend, out);
  }

  static int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags,
                  int* out_flags) {
    Owner& owner = OwnerOf(vfs);
    DiskFile& made = Of(file);
    made.real = reinterpret_cast<sqlite3_file*>(&made + 1);
    made.base.pMethods = nullptr;
    const std::string path = name == nullptr ? "" : name;
    if (owner.disk->Begin(DiskCall::kOpen, path) != 0) return SQLITE_CANTOPEN;
    const bool is_new = name != nullptr && access(name, F_OK) != 0;
    const int code = owner.under->xOpen(owner.under, name, made.real, flags, out_flags);
    if (made.real->pMethods == nullptr) return code;
    constexpr int kLogs = SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL;
    made.opened =
        new Opened{.disk = owner.disk,
                   .path = path,
                   .node = name == nullptr ? nullptr : owner.disk->NoteOpened(path, is_new),
                   .syncs_folder = is_new && (flags & kLogs) != 0};
    made.base.pMethods = &kMethods;
    return code;
  }
  static int Delete(sqlite3_vfs* vfs, const char* name, int syncs_folder) {
    Owner& owner = OwnerOf(vfs);
    if (owner.disk->Begin(DiskCall::kUnlink, name) != 0) return SQLITE_IOERR_DELETE;
    const int code = owner.under->xDelete(owner.under, name, 0);
    if (code != SQLITE_OK) return code;
    owner.disk->NoteUnlinked(name);
    if (syncs_folder != 0) {
      if (owner.disk->Begin(DiskCall::kSyncFolder, name) != 0) return SQLITE_IOERR_DIR_FSYNC;
      owner.disk->NoteFolderSynced(FolderOf(name));
    }
    return SQLITE_OK;
  }

  static const sqlite3_io_methods kMethods;
};

const sqlite3_io_methods DiskVfs::kMethods = {
    .iVersion = 2,
    .xClose = DiskVfs::Close,
    .xRead = DiskVfs::Read,
    .xWrite = DiskVfs::Write,
    .xTruncate = DiskVfs::Truncate,
    .xSync = DiskVfs::Sync,
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
    .xShmMap = DiskVfs::ShmMap,
    .xShmLock = [](sqlite3_file* f, int offset, int n,
                   int flags) { return Real(f)->pMethods->xShmLock(Real(f), offset, n, flags); },
    .xShmBarrier = [](sqlite3_file* f) { Real(f)->pMethods->xShmBarrier(Real(f)); },
    .xShmUnmap = [](sqlite3_file* f,
                    int remove) { return Real(f)->pMethods->xShmUnmap(Real(f), remove); },
    .xFetch = nullptr,
    .xUnfetch = nullptr,
};

SimulatedDisk::SimulatedDisk() {
  static std::atomic<int> last = 0;
  vfs_name_ = "kino-disk-" + std::to_string(++last);
  sqlite3_vfs* const under = sqlite3_vfs_find(nullptr);
  vfs_ = std::make_unique<sqlite3_vfs>(*under);
  vfs_->zName = vfs_name_.c_str();
  vfs_->pNext = nullptr;
  vfs_->pAppData = new DiskVfs::Owner{this, under};
  vfs_->szOsFile = static_cast<int>(sizeof(DiskVfs::DiskFile)) + under->szOsFile;
  vfs_->xOpen = DiskVfs::Open;
  vfs_->xDelete = DiskVfs::Delete;
  sqlite3_vfs_register(vfs_.get(), 0);
}

SimulatedDisk::~SimulatedDisk() {
  sqlite3_vfs_unregister(vfs_.get());
  delete static_cast<DiskVfs::Owner*>(vfs_->pAppData);
}

// --- Faults and slowness. ---

void SimulatedDisk::PlanFault(DiskFault fault) {
  absl::MutexLock lock(&mutex_);
  fault_ = std::move(fault);
  has_fault_ = true;
  struck_ = 0;
}

void SimulatedDisk::Heal() {
  absl::MutexLock lock(&mutex_);
  has_fault_ = false;
}

int SimulatedDisk::faults_struck() const {
  absl::MutexLock lock(&mutex_);
  return struck_;
}

int64_t SimulatedDisk::calls(DiskCall call) const {
  absl::MutexLock lock(&mutex_);
  const auto found = calls_.find(call);
  return found == calls_.end() ? 0 : found->second;
}

void SimulatedDisk::Hold(DiskCall call, std::string path_part, std::string thread) {
  absl::MutexLock lock(&mutex_);
  is_holding_ = true;
  held_call_ = call;
  held_path_ = std::move(path_part);
  held_thread_ = std::move(thread);
}

bool SimulatedDisk::WaitUntilHeld() {
  absl::MutexLock lock(&mutex_);
  const auto is_held = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return held_ > 0; };
  return mutex_.AwaitWithTimeout(absl::Condition(&is_held), absl::Seconds(20));
}

void SimulatedDisk::Release() {
  absl::MutexLock lock(&mutex_);
  is_holding_ = false;
}

int SimulatedDisk::Begin(DiskCall call, const std::string& path, size_t* bytes_written) {
  absl::MutexLock lock(&mutex_);
  ++calls_[call];
  if (is_holding_ && call == held_call_ && path.find(held_path_) != std::string::npos &&
      (held_thread_.empty() || held_thread_ == ThreadName())) {
    ++held_;
    const auto may_go = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !is_holding_; };
    mutex_.Await(absl::Condition(&may_go));
    --held_;
  }
  if (is_cut_) return EIO;
  if (has_fault_ && (fault_.calls.empty() || fault_.calls.contains(call)) &&
      path.find(fault_.path_part) != std::string::npos && fault_.count-- <= 0) {
    ++struck_;
    if (!fault_.is_lasting) has_fault_ = false;
    if (bytes_written != nullptr) *bytes_written = fault_.bytes_written;
    return fault_.error;
  }
  if (!folder_.empty() && Changes(call) && ++changes_ > cut_at_) {
    is_cut_ = true;
    return EIO;
  }
  return 0;
}

// --- Power. ---

void SimulatedDisk::TrackPower(const std::string& folder) {
  absl::MutexLock lock(&mutex_);
  folder_ = folder;
  is_cut_ = false;
  changes_ = 0;
  cut_at_ = INT64_MAX;
  syncs_.clear();
  names_.clear();
  name_changes_.clear();
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    auto node = std::make_shared<Node>();
    node->is_folder = entry.is_directory();
    if (!node->is_folder) node->synced = ReadWhole(entry.path().string());
    names_[entry.path().string()] = std::move(node);
  }
  synced_names_ = names_;
}

void SimulatedDisk::CutPowerAfter(int64_t count) {
  absl::MutexLock lock(&mutex_);
  cut_at_ = changes_ + count;
}

bool SimulatedDisk::is_cut() const {
  absl::MutexLock lock(&mutex_);
  return is_cut_;
}

int64_t SimulatedDisk::changes() const {
  absl::MutexLock lock(&mutex_);
  return changes_;
}

std::vector<int64_t> SimulatedDisk::syncs() const {
  absl::MutexLock lock(&mutex_);
  return syncs_;
}

void SimulatedDisk::OmitSyncs(int64_t first, int64_t last, std::string path_end) {
  absl::MutexLock lock(&mutex_);
  first_omitted_ = first;
  last_omitted_ = last;
  omitted_path_ = std::move(path_end);
}

bool SimulatedDisk::IsFollowed(const std::string& path) const {
  return !folder_.empty() && !is_cut_ && path.rfind(folder_, 0) == 0;
}

bool SimulatedDisk::CountSync(const std::string& path) {
  syncs_.push_back(changes_);
  const auto number = static_cast<int64_t>(syncs_.size());
  return number < first_omitted_ || number > last_omitted_ || !path.ends_with(omitted_path_);
}

void SimulatedDisk::Apply(const Pending& change, std::string& content) {
  const auto offset = static_cast<size_t>(change.offset);
  if (change.is_truncation) {
    content.resize(offset);
    return;
  }
  if (content.size() < offset + change.data.size()) content.resize(offset + change.data.size());
  content.replace(offset, change.data.size(), change.data);
}

SimulatedDisk::NodePtr SimulatedDisk::NoteOpened(const std::string& path, bool is_new,
                                                 bool is_folder) {
  absl::MutexLock lock(&mutex_);
  if (!IsFollowed(path)) return nullptr;
  NodePtr& node = names_[path];
  if (node == nullptr || is_new) {
    node = std::make_shared<Node>();
    node->is_folder = is_folder;
    name_changes_.push_back({.path = path, .node = node});
  }
  return node;
}

void SimulatedDisk::NoteWritten(const NodePtr& node, std::string_view data, int64_t offset) {
  absl::MutexLock lock(&mutex_);
  if (node == nullptr || is_cut_) return;
  node->pending.push_back({.is_truncation = false, .offset = offset, .data = std::string(data)});
}

void SimulatedDisk::NoteTruncated(const NodePtr& node, int64_t size) {
  absl::MutexLock lock(&mutex_);
  if (node == nullptr || is_cut_) return;
  node->pending.push_back({.is_truncation = true, .offset = size, .data = {}});
}

void SimulatedDisk::NoteSynced(const NodePtr& node, const std::string& path) {
  absl::MutexLock lock(&mutex_);
  if (node == nullptr || is_cut_ || !CountSync(path)) return;
  for (const Pending& change : node->pending) Apply(change, node->synced);
  node->pending.clear();
}

void SimulatedDisk::NoteFolderSynced(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  if (folder_.empty() || is_cut_ || !CountSync(path)) return;
  std::vector<NameChange> left;
  for (NameChange& change : name_changes_) {
    if (FolderOf(change.path) != path) {
      left.push_back(std::move(change));
    } else if (change.node == nullptr) {
      synced_names_.erase(change.path);
    } else {
      synced_names_[change.path] = change.node;
    }
  }
  name_changes_ = std::move(left);
}

void SimulatedDisk::NoteUnlinked(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  if (!IsFollowed(path)) return;
  names_.erase(path);
  name_changes_.push_back({.path = path, .node = nullptr});
}

void SimulatedDisk::NoteRenamed(const std::string& from, const std::string& to) {
  absl::MutexLock lock(&mutex_);
  if (!IsFollowed(from)) return;
  const NodePtr node = names_[from];
  names_.erase(from);
  names_[to] = node;
  name_changes_.push_back({.path = to, .node = node});
  name_changes_.push_back({.path = from, .node = nullptr});
}

void SimulatedDisk::Restore(Survival survival, RandomSource& random) {
  std::map<std::string, NodePtr> names;
  std::string folder;
  {
    absl::MutexLock lock(&mutex_);
    const auto by_chance = [&](uint64_t of) { return random.Next() % of == 0; };
    std::set<std::string> stopped;  // folders whose later changes are lost
    for (const NameChange& change : name_changes_) {
      const std::string parent = FolderOf(change.path);
      if (survival == Survival::kNothing) break;
      if (survival == Survival::kSome && by_chance(3)) stopped.insert(parent);
      if (stopped.contains(parent)) continue;
      if (change.node == nullptr) {
        synced_names_.erase(change.path);
      } else {
        synced_names_[change.path] = change.node;
      }
    }
    std::set<Node*> settled;
    for (const auto& [path, node] : synced_names_) {
      if (!settled.insert(node.get()).second) continue;
      // One file keeps nearly everything, the next hardly anything.
      const uint64_t of = 1 + random.Next() % 4;
      for (const Pending& change : node->pending) {
        if (survival == Survival::kNothing) break;
        if (survival == Survival::kEverything) {
          Apply(change, node->synced);
          continue;
        }
        if (change.is_truncation) {
          if (by_chance(of)) Apply(change, node->synced);
          continue;
        }
        for (size_t at = 0; at < change.data.size(); at += kSector) {
          if (!by_chance(of)) continue;
          Apply({.is_truncation = false,
                 .offset = change.offset + static_cast<int64_t>(at),
                 .data = change.data.substr(at, kSector)},
                node->synced);
        }
      }
      node->pending.clear();
    }
    names = synced_names_;
    folder = folder_;
    has_fault_ = false;
    is_holding_ = false;
    first_omitted_ = 0;
    last_omitted_ = -1;
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::filesystem::remove_all(entry.path());
  }
  // A folder comes before what is in it.
  for (const auto& [path, node] : names) {
    if (!std::filesystem::exists(FolderOf(path))) continue;
    if (node->is_folder) {
      std::filesystem::create_directory(path);
      std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    } else {
      std::ofstream(path, std::ios::binary) << node->synced;
      std::filesystem::permissions(
          path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    }
  }
  TrackPower(folder);
}

// --- Kino's own files. ---

class SimulatedFile final : public File {
 public:
  SimulatedFile(SimulatedDisk& disk, std::string path, std::unique_ptr<File> real,
                SimulatedDisk::NodePtr node)
      : disk_(disk), path_(std::move(path)), real_(std::move(real)), node_(std::move(node)) {}

  int Write(std::string_view data, int64_t offset) override {
    size_t written = 0;
    const int error = disk_.Begin(DiskCall::kWrite, path_, &written);
    if (error != 0) data = data.substr(0, written);
    const int real = real_->Write(data, offset);
    if (real == 0 && !data.empty()) disk_.NoteWritten(node_, data, offset);
    return error != 0 ? error : real;
  }
  int Read(char* out, size_t size, int64_t offset, size_t& got) const override {
    if (const int error = disk_.Begin(DiskCall::kRead, path_); error != 0) return error;
    return real_->Read(out, size, offset, got);
  }
  int Truncate(int64_t size) override {
    if (const int error = disk_.Begin(DiskCall::kTruncate, path_); error != 0) return error;
    const int error = real_->Truncate(size);
    if (error == 0) disk_.NoteTruncated(node_, size);
    return error;
  }
  int Punch(int64_t offset, int64_t size) override {
    if (const int error = disk_.Begin(DiskCall::kPunch, path_); error != 0) return error;
    const int error = real_->Punch(offset, size);
    if (error != 0) return error;
    int64_t end = 0;
    if (const int sized = real_->Size(end); sized != 0) return sized;
    size = std::min(size, end - offset);
    if (size > 0) {
      disk_.NoteWritten(node_, std::string(static_cast<size_t>(size), '\0'), offset);
    }
    return 0;
  }
  int Size(int64_t& size) const override { return real_->Size(size); }
  int TryLock() override {
    if (const int error = disk_.Begin(DiskCall::kLock, path_); error != 0) return error;
    return real_->TryLock();
  }
  int Sync() override {
    if (const int error = disk_.Begin(DiskCall::kSync, path_); error != 0) return error;
    disk_.NoteSynced(node_, path_);
    return 0;
  }

 private:
  SimulatedDisk& disk_;
  const std::string path_;
  const std::unique_ptr<File> real_;
  const SimulatedDisk::NodePtr node_;
};

int SimulatedDisk::Open(const std::string& path, OpenMode mode, std::unique_ptr<File>& file) {
  if (const int error = Begin(DiskCall::kOpen, path); error != 0) return error;
  const bool is_new = access(path.c_str(), F_OK) != 0;
  std::unique_ptr<File> real;
  if (const int error = real_.Open(path, mode, real); error != 0) return error;
  file = std::make_unique<SimulatedFile>(*this, path, std::move(real), NoteOpened(path, is_new));
  return 0;
}

int SimulatedDisk::Rename(const std::string& from, const std::string& to) {
  if (const int error = Begin(DiskCall::kRename, to); error != 0) return error;
  const int error = real_.Rename(from, to);
  if (error == 0) NoteRenamed(from, to);
  return error;
}

int SimulatedDisk::Unlink(const std::string& path) {
  if (const int error = Begin(DiskCall::kUnlink, path); error != 0) return error;
  const int error = real_.Unlink(path);
  if (error == 0) NoteUnlinked(path);
  return error;
}

int SimulatedDisk::MakeFolder(const std::string& path) {
  if (const int error = Begin(DiskCall::kMakeFolder, path); error != 0) return error;
  const int error = real_.MakeFolder(path);
  if (error == 0) NoteOpened(path, true, /*is_folder=*/true);
  return error;
}

int SimulatedDisk::SyncFolder(const std::string& path) {
  if (const int error = Begin(DiskCall::kSyncFolder, path); error != 0) return error;
  NoteFolderSynced(path);
  return 0;
}

int SimulatedDisk::List(const std::string& path, std::vector<std::string>& names) {
  if (const int error = Begin(DiskCall::kList, path); error != 0) return error;
  return real_.List(path, names);
}

int SimulatedDisk::FreeBytes(const std::string& path, int64_t& bytes) {
  if (const int error = Begin(DiskCall::kFreeBytes, path); error != 0) return error;
  return real_.FreeBytes(path, bytes);
}

}  // namespace kino::scheduler
