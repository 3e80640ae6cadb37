#include "server/worker/weight_hashes.h"

#include <fcntl.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <sstream>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/digest/sha256.h"

namespace kino::worker {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPieceBytes = size_t{1} << 20;
// More than any server's models have files: what lies beyond is of models that are gone.
constexpr size_t kMaxCached = 4096;
constexpr int64_t kMaxCacheBytes = int64_t{1} << 20;
constexpr size_t kSha256Digits = 64;

// Next to nothing of the processor, and nothing of the disk, while anybody else wants it. Not
// SCHED_IDLE, by which a run on all cores kept the hash of even a small model from its first job.
// Best effort: where the system refuses, a run is a little slower for a while.
void TakeLowestPriority() {
  constexpr int kNicest = 19;
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kNicest);
  constexpr int kIoprioWhoProcess = 1, kIoprioClassIdle = 3, kIoprioClassShift = 13;
  syscall(SYS_ioprio_set, kIoprioWhoProcess, 0, kIoprioClassIdle << kIoprioClassShift);
}

int64_t Nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

absl::StatusOr<std::string> IdentityOf(int fd, const std::string& path) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("'", path, "'"));
  return absl::StrCat(info.st_dev, " ", info.st_ino, " ", info.st_size, " ",
                      Nanoseconds(info.st_mtim), " ", Nanoseconds(info.st_ctim));
}

std::string NameIn(const std::string& folder, const std::string& path) {
  const fs::path relative = fs::path(path).lexically_relative(folder);
  const bool is_inside = !relative.empty() && *relative.begin() != "..";
  return (is_inside ? relative : fs::path(path).filename()).string();
}

}  // namespace

WeightHashes::WeightHashes(scheduler::FileLayer& files, std::string cache_path)
    : files_(files), cache_path_(std::move(cache_path)), thread_([this] { Loop(); }) {}

WeightHashes::~WeightHashes() {
  {
    absl::MutexLock lock(&mutex_);
    is_stopping_ = true;
    wanted_.store(0);
    changed_.SignalAll();
  }
  thread_.join();
}

void WeightHashes::Want(const std::string& model, std::string folder,
                        std::vector<std::string> paths) {
  absl::MutexLock lock(&mutex_);
  const int64_t number = ++wants_;
  Withdraw(model);
  answers_[model] = {.number = number};
  queue_.push_back({number, model, std::move(folder), std::move(paths)});
  changed_.SignalAll();
}

void WeightHashes::Forget(const std::string& model) {
  absl::MutexLock lock(&mutex_);
  Withdraw(model);
}

std::string WeightHashes::Known(const std::string& model) const {
  absl::MutexLock lock(&mutex_);
  const auto found = answers_.find(model);
  return found == answers_.end() ? "" : found->second.sha256;
}

bool WeightHashes::is_idle() const {
  absl::MutexLock lock(&mutex_);
  return queue_.empty() && !is_busy_;
}

void WeightHashes::Withdraw(const std::string& model) {
  const auto found = answers_.find(model);
  if (found == answers_.end()) return;
  if (found->second.number == wanted_.load()) wanted_.store(0);
  answers_.erase(found);
}

void WeightHashes::Loop() {
  pthread_setname_np(pthread_self(), "weight-hashes");
  TakeLowestPriority();
  ReadCache();
  while (true) {
    Wanted wanted;
    {
      absl::MutexLock lock(&mutex_);
      is_busy_ = false;
      while (!is_stopping_ && queue_.empty()) changed_.Wait(&mutex_);
      if (is_stopping_) return;
      is_busy_ = true;
      wanted = std::move(queue_.front());
      queue_.pop_front();
      const auto found = answers_.find(wanted.model);
      if (found == answers_.end() || found->second.number != wanted.number) continue;
      wanted_.store(wanted.number);
    }
    const absl::StatusOr<std::string> sha256 = HashOf(wanted);
    if (absl::IsCancelled(sha256.status())) continue;
    if (!sha256.ok()) {
      spdlog::warn("model {}: receipts have no hash of its weights: {}", wanted.model,
                   std::string(sha256.status().message()));
      continue;
    }
    absl::MutexLock lock(&mutex_);
    const auto found = answers_.find(wanted.model);
    if (found != answers_.end() && found->second.number == wanted.number)
      found->second.sha256 = *sha256;
  }
}

absl::StatusOr<std::string> WeightHashes::HashOf(const Wanted& wanted) {
  std::map<std::string, std::string> lines;  // by name
  for (const std::string& path : wanted.paths) {
    const absl::StatusOr<std::string> sha256 = HashOfFile(path, wanted.number);
    if (!sha256.ok()) return sha256;
    const std::string name = NameIn(wanted.folder, path);
    lines[name] = absl::StrCat(*sha256, "  ", name, "\n");
  }
  digest::Sha256 digest;
  for (const auto& [name, line] : lines) digest.Update(line.data(), line.size());
  return lines.empty() ? "" : digest.Hex();
}

absl::StatusOr<std::string> WeightHashes::HashOfFile(const std::string& path, int64_t number) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open '", path, "'"));
  const absl::Cleanup close_fd = [fd] { close(fd); };
  const absl::StatusOr<std::string> identity = IdentityOf(fd, path);
  if (!identity.ok()) return identity;
  if (const auto known = cache_.find(*identity); known != cache_.end()) return known->second;
  digest::Sha256 digest;
  std::vector<char> piece(kPieceBytes);
  while (true) {
    if (wanted_.load() != number) return absl::CancelledError("");
    const ssize_t got = read(fd, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read '", path, "'"));
    if (got == 0) break;
    digest.Update(piece.data(), static_cast<size_t>(got));
    bytes_read_.fetch_add(got);
  }
  const absl::StatusOr<std::string> identity_now = IdentityOf(fd, path);
  if (!identity_now.ok()) return identity_now;
  if (*identity_now != *identity)
    return absl::AbortedError(absl::StrCat("'", path, "' changed while it was read"));
  const std::string sha256 = digest.Hex();
  if (cache_.size() >= kMaxCached) cache_.clear();
  cache_[*identity] = sha256;
  WriteCache();
  return sha256;
}

// A line for each file: "DEVICE INODE SIZE MTIME CTIME SHA256".
void WeightHashes::ReadCache() {
  if (cache_path_.empty()) return;
  std::unique_ptr<scheduler::File> file;
  int64_t size = 0;
  if (files_.Open(cache_path_, scheduler::OpenMode::kRead, file) != 0 || file->Size(size) != 0 ||
      size > kMaxCacheBytes)
    return;
  std::string text(static_cast<size_t>(size), '\0');
  size_t got = 0;
  if (file->Read(text.data(), text.size(), 0, got) != 0) return;
  std::istringstream lines(text.substr(0, got));
  for (std::string line; std::getline(lines, line);) {
    const size_t space = line.rfind(' ');
    // One that is cut short: the file was written as the machine stopped.
    if (space == std::string::npos || line.size() - space - 1 != kSha256Digits) continue;
    cache_[line.substr(0, space)] = line.substr(space + 1);
  }
}

void WeightHashes::WriteCache() {
  if (cache_path_.empty()) return;
  std::string text;
  for (const auto& [identity, sha256] : cache_) absl::StrAppend(&text, identity, " ", sha256, "\n");
  const std::string next = cache_path_ + ".new";
  const auto write = [&] {
    const int made = files_.MakeFolder(fs::path(cache_path_).parent_path().string());
    if (made != 0 && made != EEXIST) return made;
    std::unique_ptr<scheduler::File> file;
    int error = files_.Open(next, scheduler::OpenMode::kCreate, file);
    if (error == 0) error = file->Truncate(0);
    if (error == 0) error = file->Write(text, 0);
    if (error == 0) error = file->Sync();
    return error == 0 ? files_.Rename(next, cache_path_) : error;
  };
  if (const int error = write(); error != 0) {
    spdlog::warn("the hashes of weights cannot be kept in '{}': {}", cache_path_,
                 std::string(absl::ErrnoToStatus(error, "").message()));
  }
}

}  // namespace kino::worker
