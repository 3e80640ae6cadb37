// The probe of uploads: kino-media decodes the file once. Free function.
#pragma once

#include "server/config/config.h"
#include "server/frontend/rpc/context.h"
#include "server/media/decode_client.h"

namespace kino::frontend {

// What is wrong with the file is the client's to know: INVALID_ARGUMENT. What is wrong with us is
// not the file's fault, and the client may try again: UNAVAILABLE, when the decoder could not be
// started, was not through in time, or there was no memory or descriptor left for it, or the token
// in `options` ended it. `options` are the decoder's; the configured limits come on top of them.
MediaProbe MakeProbe(const config::LimitsConfig& limits, media::DecodeOptions options = {});

}  // namespace kino::frontend
