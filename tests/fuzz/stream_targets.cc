// Places in what the server holds, as clients name them: where a watch goes on, which bytes of a
// video are wanted, where the next page of a list begins. Job store and files are real.
#include <algorithm>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "google/protobuf/stubs/logging.h"
#include "scheduler/store/sqlite/open.h"
#include "server/frontend/rpc/download_cursor.h"
#include "server/frontend/rpc/request_check.h"
#include "server/frontend/rpc/watch_cursor.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_random.h"
#include "tests/support/temp_dir.h"

namespace kino::fuzz {
namespace {

constexpr char kTenant[] = "a";
constexpr char kModels[] = "mn";

class Reader : public frontend::Wakeable {
 public:
  void Wake() override {}
};

// A frontend's store and files with a handful of jobs. "q" is queued; "r" runs its second attempt,
// which has made more than a chunk; "d" is done, with more than two chunks; "f" has failed; "e" is
// another tenant's and done. Its end removes its folder.
class Held {
 public:
  Held();
  ~Held() {
    queue->Stop();
    store->RemoveChangeListener(listener_);
  }

  // Of "d" and "r": what watches and downloads give.
  const std::string& VideoOf(const std::string& id) const { return videos_.at(id); }
  bool HasVideo(const std::string& id) const { return videos_.contains(id); }
  frontend::WatchSources sources() {
    return {.store = *store,
            .files = *files,
            .hub = hub,
            .queue = *queue,
            .metrics = metrics,
            .clock = clock,
            .result_ttl = absl::Hours(1)};
  }

  scheduler::FakeClock clock;
  std::unique_ptr<scheduler::JobStore> store;
  std::unique_ptr<frontend::FileStore> files;
  frontend::WatchHub hub;
  frontend::Metrics metrics;
  std::unique_ptr<frontend::QueueView> queue;

 private:
  void Submit(const std::string& id, const std::string& tenant, size_t model);
  scheduler::AttemptRef Start(const std::string& id, int64_t bytes);
  void Succeed(const scheduler::AttemptRef& ref);
  void Fail(const scheduler::AttemptRef& ref, scheduler::FailureCause cause);

  kino::testing::TempDir folder_;
  scheduler::SeededRandom random_{7};
  int64_t listener_ = 0;
  std::map<std::string, std::string> videos_;
};

Held::Held() {
  scheduler::StoreOptions options;
  options.retry.min_backoff = absl::ZeroDuration();
  auto opened =
      scheduler::OpenSqliteJobStore({.path = folder_.path() + "/jobs.db"}, options, clock, random_);
  Require(opened.ok(), "the job store opens");
  store = *std::move(opened);
  listener_ = store->AddChangeListener([this](const std::vector<scheduler::Change>& changes) {
    for (const auto& change : changes) hub.OnState(change.job_id, change.event.number);
  });
  auto folder = frontend::FileStore::Open(folder_.path());
  Require(folder.ok(), "the file store opens");
  files = *std::move(folder);
  queue = std::make_unique<frontend::QueueView>(
      frontend::QueueSources{.store = *store,
                             .clock = clock,
                             .workers = [] { return std::vector<scheduler::WorkerSnapshot>(); },
                             .held_because = nullptr,
                             .waits_for_memory = nullptr},
      hub);
  for (size_t i = 0; i < 4; ++i) Submit(std::string(1, "rdfq"[i]), kTenant, i % 2);
  Submit("e", "b", 0);
  Fail(Start("r", 100), scheduler::FailureCause::kInterrupted);
  Start("r", 300'000);
  Succeed(Start("d", 600'000));
  Fail(Start("f", 10), scheduler::FailureCause::kClient);
  Succeed(Start("e", 1000));
}

void Held::Submit(const std::string& id, const std::string& tenant, size_t model) {
  scheduler::NewJob job;
  job.id = id;
  job.tenant = tenant;
  job.model = std::string(1, kModels[model]);
  Require(store->Submit(std::move(job)).ok(), "a job is submitted");
}

scheduler::AttemptRef Held::Start(const std::string& id, int64_t bytes) {
  const auto claim = store->Claim(id, "cpu");
  Require(claim.ok() && claim->has_value(), "a job is claimed");
  const scheduler::AttemptRef ref = (*claim)->ref;
  auto writer = files->OpenWriter(frontend::FileStore::VideoName(id, ref.attempt));
  Require(writer.ok(), "a video's file opens");
  std::string video;
  for (int64_t i = 0; static_cast<int64_t>(video.size()) < bytes; ++i)
    absl::StrAppend(&video, id, i, ",");
  video.resize(static_cast<size_t>(bytes));
  hub.OnBytes(id, ref.attempt, 0);
  Require((*writer)->Append(0, video).ok(), "a video is written");
  hub.OnBytes(id, ref.attempt, bytes);
  videos_[id] = video;
  return ref;
}

void Held::Succeed(const scheduler::AttemptRef& ref) {
  scheduler::Artifact artifact;
  artifact.content_type = "video/mp4";
  artifact.size_bytes = static_cast<int64_t>(videos_[ref.job_id].size());
  artifact.file_name = frontend::FileStore::VideoName(ref.job_id, ref.attempt);
  Require(store->Commit(ref, artifact, "").ok(), "a job is done");
  hub.OnAttemptEnded(ref.job_id, ref.attempt);
}

void Held::Fail(const scheduler::AttemptRef& ref, scheduler::FailureCause cause) {
  Require(
      store->Fail(ref, {.cause = cause, .error = absl::InternalError("lost"), .stats = ""}).ok(),
      "an attempt fails");
  hub.OnAttemptEnded(ref.job_id, ref.attempt);
  files->RemoveVideo(frontend::FileStore::VideoName(ref.job_id, ref.attempt));
  videos_.erase(ref.job_id);
}

Held& TheHeld() {
  static Held held;
  return held;
}

// What was asked for, and where a client that was told so much stands.
class Watched {
 public:
  explicit Watched(const v1::WatchJobRequest& asked)
      : asked_(asked), state_number_(asked.after_state_number()) {}

  void Tell(const v1::JobEvent& event) {
    Require(event.job_id() == asked_.id(), "an event is of the watched job");
    Require(!is_finished_, "nothing follows the last event");
    if (event.has_state_change()) {
      Require(event.state_change().number() == ++state_number_, "states come in order, from there");
    }
    if (event.has_video_chunk()) TellChunk(event.video_chunk());
    is_finished_ = event.has_finished();
  }
  void RequireResumesHere(const v1::WatchJobRequest& point) const {
    Require(point.id() == asked_.id() && point.after_state_number() == state_number_,
            "a watch resumes behind the last state");
    Require(attempt_ == 0 || (point.attempt() == attempt_ && point.offset() == offset_),
            "a watch resumes behind the last byte");
  }
  void RequireWhole(const Held& held) const {
    if (asked_.no_video()) return Require(attempt_ == 0, "no video is no bytes");
    if (!held.HasVideo(asked_.id())) return Require(attempt_ == 0, "no bytes of what is gone");
    const auto size = static_cast<int64_t>(held.VideoOf(asked_.id()).size());
    Require(attempt_ > 0 ? offset_ == size : asked_.offset() == size, "all bytes have come");
  }
  bool is_finished() const { return is_finished_; }

 private:
  void TellChunk(const v1::VideoChunk& chunk) {
    Require(chunk.attempt() >= attempt_, "attempts do not go back");
    if (chunk.attempt() != attempt_) {
      attempt_ = chunk.attempt();
      offset_ = attempt_ == asked_.attempt() ? asked_.offset() : 0;
    }
    Require(chunk.offset() == offset_ && !chunk.data().empty(), "bytes come in order, from there");
    Require(TheHeld().HasVideo(asked_.id()), "there is a video");
    const std::string& video = TheHeld().VideoOf(asked_.id());
    Require(video.compare(static_cast<size_t>(offset_), chunk.data().size(), chunk.data()) == 0,
            "bytes are the video's");
    offset_ += static_cast<int64_t>(chunk.data().size());
  }

  const v1::WatchJobRequest& asked_;
  int64_t state_number_;
  int attempt_ = 0;
  int64_t offset_ = 0;
  bool is_finished_ = false;
};

bool RunWatchPlace(std::string_view bytes) {
  [[maybe_unused]] static const auto log = google::protobuf::SetLogHandler(nullptr);
  Held& held = TheHeld();
  v1::WatchJobRequest asked;
  if (!asked.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      !frontend::CheckEnvelope(asked).ok()) {
    return false;
  }
  frontend::WatchCursor cursor(held.sources(), kTenant, asked);
  if (const absl::Status begun = cursor.Begin(std::make_shared<Reader>()); !begun.ok()) {
    Require(absl::IsNotFound(begun) || absl::IsOutOfRange(begun) || absl::IsInvalidArgument(begun),
            "a place that is not there is the client's fault");
    return false;
  }
  Require(asked.id() != "e", "another tenant's job is not found");
  Watched watched(asked);
  for (;;) {
    v1::JobEvent event;
    const auto next = cursor.Take(event);
    Require(next.ok(), "a watch that has begun goes on");
    if (*next != frontend::WatchCursor::Next::kEvent) {
      Require((*next == frontend::WatchCursor::Next::kEnd) == watched.is_finished(),
              "a watch ends with its last event");
      break;
    }
    watched.Tell(event);
    watched.RequireResumesHere(cursor.ResumePoint());
  }
  watched.RequireWhole(held);
  return true;
}

std::vector<std::string> WatchPlaceSeeds() {
  std::vector<std::string> seeds;
  const auto add = [&](const char* id, int64_t after, int attempt, int64_t offset, bool no_video) {
    v1::WatchJobRequest request;
    request.set_id(id);
    request.set_after_state_number(after);
    request.set_attempt(attempt);
    request.set_offset(offset);
    request.set_no_video(no_video);
    seeds.push_back(request.SerializeAsString());
  };
  add("q", 0, 0, 0, false);
  add("r", 0, 0, 0, false);
  add("r", 2, 1, 50, false);
  add("r", 4, 2, 299'999, false);
  add("r", 4, 2, 300'000, false);
  add("d", 0, 0, 0, false);
  add("d", 3, 1, 255 * 1024, false);
  add("d", 1, 0, 0, true);
  add("f", 3, 1, 10, false);
  return seeds;
}

bool RunDownloadPlace(std::string_view bytes) {
  [[maybe_unused]] static const auto log = google::protobuf::SetLogHandler(nullptr);
  Held& held = TheHeld();
  v1::DownloadVideoRequest asked;
  if (!asked.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      !frontend::CheckEnvelope(asked).ok()) {
    return false;
  }
  frontend::DownloadCursor cursor(
      {.store = *held.store, .files = *held.files, .metrics = held.metrics}, kTenant, asked);
  if (const absl::Status opened = cursor.Open(); !opened.ok()) {
    Require(absl::IsNotFound(opened) || absl::IsOutOfRange(opened) ||
                absl::IsInvalidArgument(opened) || absl::IsFailedPrecondition(opened),
            "bytes that are not there are the client's fault");
    return false;
  }
  Require(asked.id() == "d", "only a finished video of one's own is given");
  const std::string& video = held.VideoOf("d");
  std::string given;
  for (v1::DownloadVideoResponse piece;;) {
    const absl::StatusOr<bool> more = cursor.Take(piece);
    Require(more.ok(), "a download that has begun goes on");
    if (!*more) break;
    Require(piece.offset() == asked.offset() + static_cast<int64_t>(given.size()),
            "pieces come in order");
    given += piece.data();
  }
  const size_t limit = asked.limit() == 0 ? video.size() : static_cast<size_t>(asked.limit());
  Require(given == video.substr(static_cast<size_t>(asked.offset()), limit),
          "what is given is what was asked for");
  return true;
}

std::vector<std::string> DownloadPlaceSeeds() {
  std::vector<std::string> seeds;
  const auto add = [&](int64_t offset, int64_t limit) {
    v1::DownloadVideoRequest request;
    request.set_id("d");
    request.set_offset(offset);
    request.set_limit(limit);
    seeds.push_back(request.SerializeAsString());
  };
  add(0, 0);
  add(1, 300'000);
  add(599'999, 10);
  add(600'000, 0);
  add(17, INT64_MAX);
  return seeds;
}

// Two bits choose a filter: the tenant, and whether a model is asked for.
scheduler::JobFilter FilterOf(char choice) {
  return {.tenant = (choice & 1) != 0 ? "b" : kTenant,
          .states = {},
          .model = (choice & 2) != 0 ? "m" : "",
          .labels = {}};
}

std::vector<std::string> Walk(const scheduler::JobFilter& filter, std::string token) {
  std::vector<std::string> ids;
  do {
    const auto page = TheHeld().store->List(filter, 1, token);
    Require(page.ok(), "a token that the store made is taken");
    for (const scheduler::Job& job : page->jobs) ids.push_back(job.id);
    Require(ids.size() <= 10, "a walk ends");
    token = page->next_page_token;
  } while (!token.empty());
  return ids;
}

bool RunPageToken(std::string_view bytes) {
  if (bytes.empty()) return false;
  const scheduler::JobFilter filter = FilterOf(bytes[0]);
  const std::string token(bytes.substr(1));
  const auto page = TheHeld().store->List(filter, 1, token);
  if (!page.ok()) {
    Require(absl::IsInvalidArgument(page.status()), "a wrong token is the client's fault");
    return false;
  }
  const std::vector<std::string> all = Walk(filter, ""), rest = Walk(filter, token);
  Require(rest.size() <= all.size() && std::equal(rest.rbegin(), rest.rend(), all.rbegin()),
          "from any place on come the jobs that a walk from the beginning ends with");
  return true;
}

std::vector<std::string> PageTokenSeeds() {
  std::vector<std::string> seeds;
  for (const char choice : {'\0', '\1', '\2', '\3'}) {
    seeds.push_back(std::string(1, choice));
    std::string token;
    do {
      const auto page = TheHeld().store->List(FilterOf(choice), 1, token);
      Require(page.ok(), "a list is given");
      token = page->next_page_token;
      if (!token.empty()) seeds.push_back(choice + token);
    } while (!token.empty());
  }
  return seeds;
}

}  // namespace

std::vector<FuzzTarget> StreamTargets() {
  return {{"watch_place", RunWatchPlace, WatchPlaceSeeds, 10000},
          {"download_place", RunDownloadPlace, DownloadPlaceSeeds, 10000},
          {"page_token", RunPageToken, PageTokenSeeds, 10000}};
}

}  // namespace kino::fuzz
