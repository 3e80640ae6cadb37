#include "engine/quant/formats.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"
#include "engine/quant/bitsandbytes.h"
#include "engine/quant/gguf.h"
#include "engine/quant/torchao.h"

namespace kino::engine {

std::shared_ptr<const WeightFormat> MakeWeightFormat(QuantScheme scheme, double int8_threshold,
                                                     c10::ScalarType compute) {
  const auto refuse = [&](const std::string& what) {
    throw StatusError(
        absl::InvalidArgumentError(absl::StrCat("quantize ", QuantSchemeName(scheme), ": ", what)));
  };
  if (compute != at::kFloat && compute != at::kHalf && compute != at::kBFloat16) {
    refuse(absl::StrCat("computes in float32, float16 or bfloat16, got ", c10::toString(compute)));
  }
  switch (scheme) {
    case QuantScheme::kNone:
      break;
    case QuantScheme::kNf4:
      return MakeBnb4Bit({.type = Bnb4BitType::kNf4});
    case QuantScheme::kNf4Dq:
      return MakeBnb4Bit({.type = Bnb4BitType::kNf4, .nested = true});
    case QuantScheme::kFp4:
      return MakeBnb4Bit({.type = Bnb4BitType::kFp4});
    case QuantScheme::kFp4Dq:
      return MakeBnb4Bit({.type = Bnb4BitType::kFp4, .nested = true});
    case QuantScheme::kInt8:
      if (!(int8_threshold >= 0))
        refuse(absl::StrCat("expected a threshold of 0 or more, got ", int8_threshold));
      return MakeBnbInt8(int8_threshold);
    case QuantScheme::kInt8Wo:
      return MakeTorchAoInt8WeightOnly();
    case QuantScheme::kInt8Dyn:
      return MakeTorchAoInt8Dynamic();
    case QuantScheme::kFp8Wo:
      return MakeTorchAoFloat8WeightOnly();
    case QuantScheme::kFp8Dyn:
      return MakeTorchAoFloat8Dynamic();
    case QuantScheme::kQ8_0:
      return MakeGgufFormat(GgmlType::kQ8_0);
    case QuantScheme::kQ4_0:
      return MakeGgufFormat(GgmlType::kQ4_0);
    case QuantScheme::kQ4_1:
      return MakeGgufFormat(GgmlType::kQ4_1);
    case QuantScheme::kQ5_0:
      return MakeGgufFormat(GgmlType::kQ5_0);
    case QuantScheme::kQ5_1:
      return MakeGgufFormat(GgmlType::kQ5_1);
  }
  refuse("stands for no format");
  return nullptr;
}

}  // namespace kino::engine
