// W3C Trace Context (https://www.w3.org/TR/trace-context/): the traceparent of a job's request.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "kino/v1/video.pb.h"

namespace kino::convert {

// Of version 00, or of a later one that begins as it does: VERSION-TRACE-PARENT-FLAGS in lower-case
// hexadecimal, neither id all zero.
bool IsTraceparent(absl::string_view text);

// ", trace ID" for a line of a log; empty: the request has no traceparent.
std::string TraceForLog(const v1::GenerateRequest& request);

}  // namespace kino::convert
