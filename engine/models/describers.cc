// What describe knows, a line for each family. No torch here: the frontend links it.
#include "engine/describe/families.h"
#include "engine/models/allegro/describe.h"
#include "engine/models/cogvideox/describe.h"
#include "engine/models/hunyuan_video/describe.h"
#include "engine/models/ltx/describe.h"
#include "engine/models/mochi/describe.h"

namespace kino::engine {

const std::vector<FamilyDescriber>& FamilyDescribers() {
  static const std::vector<FamilyDescriber> describers = {
      LtxDescriber(),       MochiDescriber(),        AllegroDescriber(),
      CogVideoXDescriber(), HunyuanVideoDescriber(),
  };
  return describers;
}

}  // namespace kino::engine
