// The stages of a run, in the order they are entered. Values only; no torch.
#pragma once

namespace kino::engine {

enum class Stage { kLoad, kEncodeText, kEncodeMedia, kDenoise, kUpscale, kDecode, kMux };
// "encode_text"
const char* StageName(Stage stage);

}  // namespace kino::engine
