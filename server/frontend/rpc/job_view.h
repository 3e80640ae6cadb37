// The scheduler's job -> the API's. Free functions over values.
#pragma once

#include "kino/v1/video.pb.h"
#include "scheduler/jobs/event.h"
#include "scheduler/jobs/job.h"

namespace kino::frontend {

v1::Job ToProto(const scheduler::Job& job);
v1::StateChange ToProto(const scheduler::StateEvent& event);
v1::Asset ToProto(const scheduler::Asset& asset);
void SetTime(absl::Time time, google::protobuf::Timestamp* out);

}  // namespace kino::frontend
