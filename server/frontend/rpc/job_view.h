// The scheduler's job -> the API's. Free functions over values.
#pragma once

#include "kino/v1/video.pb.h"
#include "scheduler/jobs/event.h"
#include "scheduler/jobs/job.h"
#include "server/frontend/watch/standing.h"

namespace kino::frontend {

v1::Job ToProto(const scheduler::Job& job);
v1::StateChange ToProto(const scheduler::StateEvent& event);
v1::Asset ToProto(const scheduler::Asset& asset);
// Queue position, reason and time of a queued job.
void FillStanding(const Standing& standing, v1::Job& out);
void FillStanding(const Standing& standing, v1::Progress& out);
void SetTime(absl::Time time, google::protobuf::Timestamp* out);

}  // namespace kino::frontend
