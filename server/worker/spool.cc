#include "server/worker/spool.h"

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace kino::worker {
namespace {

constexpr char kDiskFullPayload[] = "kino/disk_full";
constexpr char kShortagePayload[] = "kino/shortage";

absl::Status SystemError(int error, const std::string& what) {
  absl::Status status = absl::ErrnoToStatus(error, what);
  if (scheduler::IsOutOfSpace(error)) status.SetPayload(kDiskFullPayload, absl::Cord());
  if (scheduler::IsOutOfResources(error)) status.SetPayload(kShortagePayload, absl::Cord());
  return status;
}

absl::Status FolderError(int error, absl::string_view what, const std::string& path) {
  const absl::Status status = absl::ErrnoToStatus(error, "");
  return absl::FailedPreconditionError(
      absl::StrCat("cannot prepare the spool folder: ", what, " '", path, "': ", status.message()));
}

}  // namespace

bool IsDiskFull(const absl::Status& error) {
  return error.GetPayload(kDiskFullPayload).has_value();
}

bool IsShortage(const absl::Status& error) {
  return error.GetPayload(kShortagePayload).has_value();
}

absl::Status PrepareSpoolFolder(scheduler::FileLayer& files, const std::string& folder) {
  for (const std::string& made : {folder.substr(0, folder.rfind('/')), folder}) {
    const int error = files.MakeFolder(made);
    if (error != 0 && error != EEXIST) return FolderError(error, "making", made);
  }
  std::vector<std::string> names;
  if (const int error = files.List(folder, names); error != 0)
    return FolderError(error, "listing", folder);
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(folder, "/", name);
    if (const int error = files.Unlink(path); error != 0)
      return FolderError(error, "removing", path);
  }
  return absl::OkStatus();
}

std::unique_ptr<Spool> Spool::Create(scheduler::FileLayer& files, const std::string& path) {
  std::unique_ptr<Spool> spool(new Spool(files, path));
  const int error = files.Open(path, scheduler::OpenMode::kCreateNew, spool->file_);
  if (error != 0) {
    absl::MutexLock lock(&spool->mutex_);
    spool->status_ = SystemError(error, absl::StrCat("cannot create spool '", path, "'"));
  }
  return spool;
}

Spool::~Spool() {
  if (file_ == nullptr) return;
  file_.reset();
  (void)files_.Unlink(path_);
}

absl::Status Spool::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

absl::Status Spool::Append(v1::AttemptEvent event) {
  Entry entry;
  if (event.has_chunk()) {
    v1::Chunk* chunk = event.mutable_chunk();
    {
      absl::MutexLock lock(&mutex_);
      if (!status_.ok()) return status_;
      if (chunk->offset() != end_offset_) {
        return absl::InternalError(
            absl::StrCat("chunk starts at ", chunk->offset(), ", expected ", end_offset_));
      }
    }
    const std::string data = std::move(*chunk->mutable_data());
    chunk->clear_data();
    entry.offset = chunk->offset();
    entry.size = static_cast<int64_t>(data.size());
    if (const int error = file_->Write(data, entry.offset); error != 0)
      return SystemError(error, "cannot write the attempt's spool");
  }
  absl::MutexLock lock(&mutex_);
  if (!status_.ok() && !event.has_failed()) return status_;
  end_offset_ += entry.size;
  event.set_number(++last_number_);
  if (event.has_done() || event.has_failed()) has_last_ = true;
  entry.event = std::move(event);
  entries_.push_back(std::move(entry));
  return absl::OkStatus();
}

absl::StatusOr<std::optional<v1::AttemptEvent>> Spool::Next(int64_t after) const {
  Entry entry;
  {
    absl::MutexLock lock(&mutex_);
    if (entries_.empty() || last_number_ <= after) return std::optional<v1::AttemptEvent>();
    // Numbers are without gaps.
    const int64_t first = entries_.front().event.number();
    entry = entries_[static_cast<size_t>(std::max(after + 1, first) - first)];
  }
  if (entry.event.has_chunk()) {
    std::string* data = entry.event.mutable_chunk()->mutable_data();
    data->resize(static_cast<size_t>(entry.size));
    size_t got = 0;
    const int error = file_->Read(data->data(), data->size(), entry.offset, got);
    // Acknowledged meanwhile: its bytes may be gone already.
    absl::MutexLock lock(&mutex_);
    if (entry.event.number() <= acknowledged_) return std::optional<v1::AttemptEvent>();
    if (error != 0 || got < data->size())
      return SystemError(error != 0 ? error : EIO, "cannot read the attempt's spool");
  }
  return std::optional<v1::AttemptEvent>(std::move(entry.event));
}

bool Spool::GiveUp(int64_t after, const absl::Status& error) {
  absl::MutexLock lock(&mutex_);
  status_ = error;
  while (!entries_.empty() && entries_.back().event.number() > after) entries_.pop_back();
  // Numbers stay without gaps: what is appended next takes the place of what is lost.
  last_number_ = after;
  return std::exchange(has_last_, false);
}

void Spool::Acknowledge(int64_t number) {
  int64_t released = 0;
  {
    absl::MutexLock lock(&mutex_);
    while (!entries_.empty() && entries_.front().event.number() <= number) {
      const Entry& entry = entries_.front();
      if (entry.size > 0) released = entry.offset + entry.size;
      acknowledged_ = entry.event.number();
      entries_.pop_front();
    }
  }
  // A file system that cannot punch holes only keeps the space until the attempt ends.
  if (released > 0) (void)file_->Punch(0, released);
}

int64_t Spool::bytes() const {
  absl::MutexLock lock(&mutex_);
  int64_t bytes = 0;
  for (const Entry& entry : entries_) bytes += entry.size;
  return bytes;
}

int64_t Spool::last_number() const {
  absl::MutexLock lock(&mutex_);
  return last_number_;
}

bool Spool::is_drained() const {
  absl::MutexLock lock(&mutex_);
  return has_last_ && entries_.empty();
}

}  // namespace kino::worker
