// One attempt from the moment the engine thread takes it up to its last event: load the model,
// decode the conditions, drive the engine's run, put what comes of it into the attempt's spool.
// Runs on the engine thread; what it tells the outside goes through HeldAttempt, which is
// thread-safe.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "scheduler/clock.h"
#include "server/media/decode_client.h"
#include "server/worker/held_attempts.h"
#include "server/worker/models.h"

namespace kino::worker {

// Decodes the file of one condition within the limits of `options`, and ends soon once its token is
// cancelled. INVALID_ARGUMENT: it is none that can be decoded.
using MediaDecoder = std::function<absl::StatusOr<engine::MediaInput>(
    const std::string& path, engine::ConditionKind kind, const media::DecodeOptions& options)>;

struct AttemptContext {
  engine::Engine& engine;
  Models& models;
  const MediaDecoder& decode;
  const media::DecodeOptions& decode_options;
  const scheduler::Clock& clock;
  // Called after each change the link should send.
  const std::function<void()>& notify;
  // Called after each step: the device's memory in use may have changed.
  std::function<void()> measure_memory;
};

// Runs `attempt` and appends its events: started, chunks, then done or failed, whatever happens;
// nothing at all when it ended while it waited, nothing more once it is dropped. Returns when the
// engine's memory of the run is free again; the attempt counts as ended just before its last event
// can be sent.
void RunAttempt(const AttemptContext& context, HeldAttempt& attempt);

}  // namespace kino::worker
