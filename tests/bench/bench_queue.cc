// How fast a server takes jobs and starts them, over gRPC and with real fsyncs.
//
// bench_queue --server HOST:PORT [--clients 16] [--seconds 10] [--starts 200]
//
// The server runs a worker that takes no time (build/bin/fake-worker in kino-worker's place;
// bench_queue.py starts both). First `starts` jobs one after another, each from the submission to
// the moment a watcher hears RUNNING; then `clients` submit jobs for `seconds`; then as many of
// those that wait are cancelled, one after another. Prints one line of JSON.
#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/queue_client.h"

namespace kino::bench {
namespace {

constexpr char kQuick[] = "steps=1 chunks=1 chunk_bytes=100";

// From the call to the state RUNNING, milliseconds.
double TimeStart(v1::VideoService::Stub& videos, int number) {
  grpc::ClientContext context;
  const auto begin = Clock::now();
  const auto stream = videos.Generate(&context, Request(absl::StrCat("start-", number), kQuick));
  v1::JobEvent event;
  double started = -1;
  while (stream->Read(&event)) {
    if (started < 0 && event.state_change().state() == v1::RUNNING)
      started = MillisecondsSince(begin);
  }
  if (const grpc::Status status = stream->Finish(); !status.ok() || started < 0)
    Die(absl::StrCat("a job did not run: ", status.error_message()));
  return started;
}

// From the call to its acknowledgement, milliseconds.
double TimeCancel(v1::VideoService::Stub& videos, const std::string& id) {
  grpc::ClientContext context;
  v1::CancelJobRequest request;
  request.set_id(id);
  v1::Job job;
  const auto begin = Clock::now();
  const grpc::Status status = videos.CancelJob(&context, request, &job);
  const double took = MillisecondsSince(begin);
  if (!status.ok() || job.state() != v1::CANCELLED)
    Die(absl::StrCat("a queued job was not cancelled: ", status.error_message()));
  return took;
}

int Main(int argc, char** argv) {
  std::string server;
  int clients = 16, seconds = 10, starts = 200;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--server") server = argv[i + 1];
    if (name == "--clients") clients = std::atoi(argv[i + 1]);
    if (name == "--seconds") seconds = std::atoi(argv[i + 1]);
    if (name == "--starts") starts = std::atoi(argv[i + 1]);
  }
  if (server.empty()) Die("--server is needed");

  std::vector<double> started;
  const auto videos = Connect(server, 0);
  for (int i = 0; i < starts; ++i) started.push_back(TimeStart(*videos, i));

  // The worker hangs from here on: what it does is not what is timed.
  Submit(*videos, "hang", "at=0 do=hang");
  std::atomic<bool> is_over{false};
  std::vector<std::vector<double>> times(static_cast<size_t>(clients));
  std::vector<std::thread> threads;
  const auto begin = Clock::now();
  for (int c = 0; c < clients; ++c) {
    threads.emplace_back([&, c] {
      const auto own = Connect(server, c + 1);
      for (int i = 0; !is_over; ++i) {
        const auto sent = Clock::now();
        Submit(*own, absl::StrCat("submit-", c, "-", i), kQuick);
        times[static_cast<size_t>(c)].push_back(MillisecondsSince(sent));
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::seconds(seconds));
  is_over = true;
  for (std::thread& thread : threads) thread.join();
  const double took = MillisecondsSince(begin) / 1000;
  std::vector<double> cancelled;
  for (int i = 0; i < starts; ++i) {
    cancelled.push_back(
        TimeCancel(*videos, Submit(*videos, absl::StrCat("cancel-", i), kQuick).id()));
  }
  std::vector<double> all;
  for (const std::vector<double>& some : times) all.insert(all.end(), some.begin(), some.end());
  std::printf(
      "{\"start_p50_ms\": %.2f, \"start_p99_ms\": %.2f, \"submits_per_second\": %.0f, "
      "\"submit_p50_ms\": %.2f, "
      "\"submit_p99_ms\": %.2f, \"cancel_p50_ms\": %.2f, \"cancel_p99_ms\": %.2f, \"clients\": %d, "
      "\"submits\": %zu}\n",
      Percentile(started, 0.5), Percentile(started, 0.99), static_cast<double>(all.size()) / took,
      Percentile(all, 0.5), Percentile(all, 0.99), Percentile(cancelled, 0.5),
      Percentile(cancelled, 0.99), clients, all.size());
  return 0;
}

}  // namespace
}  // namespace kino::bench

int main(int argc, char** argv) { return kino::bench::Main(argc, argv); }
