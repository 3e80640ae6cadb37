// How fast a server takes jobs and starts them, over gRPC and with real fsyncs.
//
// bench_queue --server HOST:PORT [--clients 16] [--seconds 10] [--starts 200]
//
// The server runs a worker that takes no time (build/bin/fake-worker in kino-worker's place;
// bench_queue.py starts both). First `starts` jobs one after another, each from the submission to
// the moment a watcher hears RUNNING; then `clients` submit jobs for `seconds`. Prints one line of
// JSON.
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kino/v1/video.grpc.pb.h"

namespace kino {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

double MillisecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

v1::GenerateRequest Request(const std::string& id,
                            const std::string& prompt = "steps=1 chunks=1 chunk_bytes=100") {
  v1::GenerateRequest request;
  request.set_model("demo");
  request.set_prompt(prompt);
  request.set_height(64);
  request.set_width(64);
  request.set_num_frames(17);
  request.set_num_inference_steps(4);
  request.set_request_id(id);
  return request;
}

double Percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values.empty()
             ? 0
             : values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

// From the call to the state RUNNING, milliseconds.
double TimeStart(v1::VideoService::Stub& videos, int number) {
  grpc::ClientContext context;
  const auto begin = Clock::now();
  const auto stream = videos.Generate(&context, Request(absl::StrCat("start-", number)));
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
  const auto connect = [&](int number) {
    grpc::ChannelArguments arguments;
    arguments.SetInt("client", number);  // each with a connection of its own
    return v1::VideoService::NewStub(
        grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments));
  };

  std::vector<double> started;
  const auto videos = connect(0);
  for (int i = 0; i < starts; ++i) started.push_back(TimeStart(*videos, i));

  // The worker hangs from here on: what it does is not what is timed.
  {
    grpc::ClientContext context;
    v1::SubmitJobRequest request;
    *request.mutable_request() = Request("hang", "at=0 do=hang");
    v1::Job job;
    if (const grpc::Status status = videos->SubmitJob(&context, request, &job); !status.ok())
      Die(absl::StrCat("a submission failed: ", status.error_message()));
  }
  std::atomic<bool> is_over{false};
  std::vector<std::vector<double>> times(static_cast<size_t>(clients));
  std::vector<std::thread> threads;
  const auto begin = Clock::now();
  for (int c = 0; c < clients; ++c) {
    threads.emplace_back([&, c] {
      const auto own = connect(c + 1);
      for (int i = 0; !is_over; ++i) {
        grpc::ClientContext context;
        v1::SubmitJobRequest request;
        *request.mutable_request() = Request(absl::StrCat("submit-", c, "-", i));
        v1::Job job;
        const auto sent = Clock::now();
        const grpc::Status status = own->SubmitJob(&context, request, &job);
        if (!status.ok()) Die(absl::StrCat("a submission failed: ", status.error_message()));
        times[static_cast<size_t>(c)].push_back(MillisecondsSince(sent));
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::seconds(seconds));
  is_over = true;
  for (std::thread& thread : threads) thread.join();
  const double took = MillisecondsSince(begin) / 1000;
  std::vector<double> all;
  for (const std::vector<double>& some : times) all.insert(all.end(), some.begin(), some.end());
  std::printf(
      "{\"start_p50_ms\": %.2f, \"start_p99_ms\": %.2f, \"submits_per_second\": %.0f, "
      "\"submit_p50_ms\": %.2f, "
      "\"submit_p99_ms\": %.2f, \"clients\": %d, \"submits\": %zu}\n",
      Percentile(started, 0.5), Percentile(started, 0.99), static_cast<double>(all.size()) / took,
      Percentile(all, 0.5), Percentile(all, 0.99), clients, all.size());
  return 0;
}

}  // namespace
}  // namespace kino

int main(int argc, char** argv) { return kino::Main(argc, argv); }
