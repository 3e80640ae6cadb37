// The scheduler's job -> the API's. Free functions over values.
#pragma once

#include "kino/v1/video.pb.h"
#include "scheduler/jobs/event.h"
#include "scheduler/jobs/job.h"
#include "server/frontend/watch/standing.h"

namespace kino::frontend {

// `result_ttl`: how long the server keeps results of jobs that say nothing of it.
v1::Job ToProto(const scheduler::Job& job, absl::Duration result_ttl);
v1::StateChange ToProto(const scheduler::StateEvent& event);
v1::Asset ToProto(const scheduler::Asset& asset);
// Queue position, reason and time of a queued job.
// Times that are left count from `now`.
void FillStanding(const Standing& standing, absl::Time now, v1::Job& out);
void FillStanding(const Standing& standing, absl::Time now, v1::Progress& out);
void SetTime(absl::Time time, google::protobuf::Timestamp* out);

}  // namespace kino::frontend
