// What bench_queue and bench_watchers share as clients of a server whose worker is fake-worker.
#pragma once

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kino/v1/video.grpc.pb.h"

namespace kino::bench {

using Clock = std::chrono::steady_clock;

[[noreturn]] inline void Die(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

inline void DieUnless(const grpc::Status& status, const char* what) {
  if (!status.ok()) Die(absl::StrCat(what, ": ", status.error_message()));
}

inline double MillisecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

inline double Percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values.empty()
             ? 0
             : values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

// Each number has a connection of its own.
inline std::unique_ptr<v1::VideoService::Stub> Connect(const std::string& server, int number) {
  grpc::ChannelArguments arguments;
  arguments.SetInt("client", number);
  return v1::VideoService::NewStub(
      grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments));
}

// `script` is the prompt, which fake-worker obeys.
inline v1::GenerateRequest Request(const std::string& id, const std::string& script) {
  v1::GenerateRequest request;
  request.set_model("demo");
  request.set_prompt(script);
  request.set_height(64);
  request.set_width(64);
  request.set_num_frames(17);
  request.set_num_inference_steps(4);
  request.set_request_id(id);
  return request;
}

inline v1::Job Submit(v1::VideoService::Stub& videos, const std::string& id,
                      const std::string& script) {
  grpc::ClientContext context;
  v1::SubmitJobRequest request;
  *request.mutable_request() = Request(id, script);
  v1::Job job;
  DieUnless(videos.SubmitJob(&context, request, &job), "a submission failed");
  return job;
}

}  // namespace kino::bench
