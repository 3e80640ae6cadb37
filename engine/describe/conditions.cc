#include "engine/describe/conditions.h"

#include "absl/strings/str_cat.h"

namespace kino::engine {

const char* ConditionKindName(ConditionKind kind) {
  switch (kind) {
    case ConditionKind::kImage:
      return "IMAGE";
    case ConditionKind::kVideo:
      return "VIDEO";
    case ConditionKind::kControlVideo:
      return "CONTROL_VIDEO";
  }
  return "KIND_UNSPECIFIED";
}

void ExpectOneCondition(const Request& request, ConditionKind kind, bool fully,
                        std::vector<FieldViolation>& violations) {
  const std::vector<Condition>& conditions = request.conditions;
  const FailInto fail{violations};
  if (conditions.size() != 1 || conditions[0].kind != kind) {
    return fail("conditions",
                absl::StrCat(TaskName(request.task), " takes exactly one ", ConditionKindName(kind),
                             " here, got ",
                             conditions.size() == 1 ? ConditionKindName(conditions[0].kind)
                                                    : absl::StrCat(conditions.size())));
  }
  if (conditions[0].frame_index != 0) {
    fail("conditions[0].frame_index",
         absl::StrCat("it begins with the first frame here, expected 0, got ",
                      conditions[0].frame_index));
  }
  if (fully && conditions[0].strength != 1.0) {
    fail("conditions[0].strength", absl::StrCat("expected 1, got ", conditions[0].strength));
  }
}

void ExpectFirstAndLastImage(const Request& request, std::vector<FieldViolation>& violations) {
  Request first = request;
  first.conditions.pop_back();
  ExpectOneCondition(first, ConditionKind::kImage, /*fully=*/true, violations);
  const Condition& last = request.conditions.back();
  if (last.kind == ConditionKind::kImage && last.strength == 1.0 &&
      last.frame_index == *request.num_frames - 1)
    return;
  FailInto{violations}(
      "conditions[1]",
      absl::StrCat("expected an image of strength 1 at the last frame, ", *request.num_frames - 1,
                   "; got ", ConditionKindName(last.kind), " of strength ", last.strength,
                   " at frame ", last.frame_index));
}

}  // namespace kino::engine
