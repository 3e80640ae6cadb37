#include "engine/describe/stage.h"

namespace kino::engine {

const char* StageName(Stage stage) {
  switch (stage) {
    case Stage::kLoad:
      return "load";
    case Stage::kEncodeText:
      return "encode_text";
    case Stage::kEncodeMedia:
      return "encode_media";
    case Stage::kDenoise:
      return "denoise";
    case Stage::kUpscale:
      return "upscale";
    case Stage::kDecode:
      return "decode";
    case Stage::kMux:
      return "mux";
  }
  return "unknown";
}

}  // namespace kino::engine
