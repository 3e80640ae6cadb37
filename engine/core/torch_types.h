// Our dtypes as torch's. The only header of core that includes torch.
#pragma once

#include <c10/core/ScalarType.h>

#include "engine/core/dtype.h"

namespace kino::engine {

c10::ScalarType ToTorch(DType dtype);

}  // namespace kino::engine
