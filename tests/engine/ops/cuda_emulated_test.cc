// Every CUDA kernel of the operators on the CPU (emulated_kernels.h) against its operator's
// composed form: all element types, odd widths, ragged tails, several orders of threads; under
// ASan, which sees a kernel that reads or writes beside its arrays.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "engine/ops/norm_modulate.h"
#include "engine/ops/norm_rotary.h"
#include "engine/ops/norm_silu.h"
#include "engine/ops/swiglu.h"
#include "engine/ops/video_frames.h"
#include "tests/engine/ops/emulated_kernels.h"

namespace kino::engine {
namespace {

using ::kino::testing::CudaBlock;
using ::kino::testing::kSchedules;
using ::kino::testing::Schedule;

emulated::Element ElementOf(c10::ScalarType dtype) {
  return dtype == at::kFloat  ? emulated::Element::kFloat
         : dtype == at::kHalf ? emulated::Element::kHalf
                              : emulated::Element::kBFloat16;
}

// A step of a value of about 8, for sums in another order.
double Tolerance(c10::ScalarType dtype) {
  return dtype == at::kFloat ? 1e-5 : dtype == at::kHalf ? 8e-3 : 6.3e-2;
}

// Of half types few values may be rounded the other way: a kernel that rounds elsewhere differs in
// many.
void ExpectClose(const at::Tensor& got, const at::Tensor& expected, const std::string& what) {
  const c10::ScalarType dtype = expected.scalar_type();
  ASSERT_EQ(got.sizes(), expected.sizes()) << what;
  const at::Tensor difference = (got.to(at::kDouble) - expected.to(at::kDouble)).abs();
  EXPECT_LE(difference.max().item<double>(), Tolerance(dtype)) << what;
  if (dtype == at::kFloat) return;
  EXPECT_LE((difference > 0).to(at::kDouble).mean().item<double>(), 0.02) << what;
}

class EmulatedKernels : public ::testing::TestWithParam<std::tuple<c10::ScalarType, Schedule>> {
 protected:
  EmulatedKernels() {
    CudaBlock::schedule = std::get<1>(GetParam());
    CudaBlock::random.seed(7);
  }
  c10::ScalarType dtype() const { return std::get<0>(GetParam()); }
  at::Tensor Random(at::IntArrayRef shape, uint64_t seed) const {
    return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions())
        .to(dtype());
  }
  static emulated::Rows RowsOf(const at::Tensor& x, const at::Tensor& table,
                               const TokenSpans& spans) {
    emulated::Rows rows = {.rows = x.size(0) * x.size(1),
                           .tokens = x.size(1),
                           .width = x.size(2),
                           .batch_rows = table.dim() == 3 ? table.size(1) : 0,
                           .spans = {}};
    for (const TokenSpan& span : spans) {
      rows.spans.end[rows.spans.count] = span.end;
      rows.spans.row[rows.spans.count++] = span.row;
    }
    return rows;
  }
};

const TokenSpans kSpans = {{0, 1, 2}, {1, 1, 1}, {1, 3, 0}};

TEST_P(EmulatedKernels, NormModulateIsItsComposedForm) {
  for (const int64_t width : {300, 33}) {
    const at::Tensor x = Random({2, 3, width}, 1);
    for (const at::Tensor& scale : {Random({3, width}, 3), Random({2, 3, width}, 3)}) {
      for (const at::Tensor& shift : {Random(scale.sizes(), 2), at::Tensor()}) {
        for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
          for (const Rounding rounding : {Rounding::kEachStep, Rounding::kOnce}) {
            const NormStyle style = {.kind = kind, .eps = 1e-6, .rounding = rounding};
            at::Tensor out = at::empty_like(x);
            ASSERT_EQ(
                emulated::NormModulate(ElementOf(dtype()), kind == NormKind::kLayer,
                                       rounding == Rounding::kOnce, x.const_data_ptr(), nullptr,
                                       nullptr, shift.defined() ? shift.const_data_ptr() : nullptr,
                                       scale.const_data_ptr(), out.mutable_data_ptr(),
                                       RowsOf(x, scale, kSpans), 1e-6f, nullptr),
                cudaSuccess);
            ExpectClose(out, NormModulateComposed(x, style, shift, scale, kSpans),
                        "width " + std::to_string(width));
            if (kind == NormKind::kRms || rounding == Rounding::kOnce || !shift.defined()) continue;
            const NormAffine affine = {.weight = Random({width}, 4), .bias = Random({width}, 5)};
            out = at::empty_like(x);
            ASSERT_EQ(emulated::NormModulate(ElementOf(dtype()), true, false, x.const_data_ptr(),
                                             affine.weight.const_data_ptr(),
                                             affine.bias.const_data_ptr(), shift.const_data_ptr(),
                                             scale.const_data_ptr(), out.mutable_data_ptr(),
                                             RowsOf(x, scale, kSpans), 1e-6f, nullptr),
                      cudaSuccess);
            ExpectClose(out, NormModulateComposed(x, style, shift, scale, kSpans, affine),
                        "affine, width " + std::to_string(width));
          }
        }
      }
    }
  }
}

TEST_P(EmulatedKernels, GatesAreTheirComposedForms) {
  for (const int64_t width : {33, 301}) {
    const at::Tensor x = Random({2, 3, width}, 1), y = Random({2, 3, width}, 2);
    for (const at::Tensor& gate : {Random({3, width}, 3), Random({2, 3, width}, 3)}) {
      at::Tensor expected = x.clone(), consumed = y.clone(), got = x.clone();
      AddGatedComposed(expected, consumed, gate, kSpans);
      ASSERT_EQ(emulated::AddGated(ElementOf(dtype()), got.mutable_data_ptr(), y.const_data_ptr(),
                                   gate.const_data_ptr(), RowsOf(x, gate, kSpans), nullptr),
                cudaSuccess);
      ExpectClose(got, expected, "AddGated");
      expected = x.clone();
      got = x.clone();
      AddNormGatedComposed(expected, y, 1e-6, gate, kSpans);
      ASSERT_EQ(
          emulated::AddNormGated(ElementOf(dtype()), got.mutable_data_ptr(), y.const_data_ptr(),
                                 gate.const_data_ptr(), RowsOf(x, gate, kSpans), 1e-6f, nullptr),
          cudaSuccess);
      ExpectClose(got, expected, "AddNormGated");
    }
  }
}

TEST_P(EmulatedKernels, SwiGluIsItsComposedForm) {
  for (const int64_t half : {300, 33}) {
    const at::Tensor x = Random({2, 3, 2 * half}, 1);
    for (const bool gate_first : {false, true}) {
      const at::Tensor out = at::empty({2, 3, half}, x.options());
      ASSERT_EQ(emulated::SwiGlu(ElementOf(dtype()), x.const_data_ptr(), out.mutable_data_ptr(), 6,
                                 half, gate_first, nullptr),
                cudaSuccess);
      ExpectClose(out, SwiGluComposed(x, gate_first), "half " + std::to_string(half));
    }
  }
}

TEST_P(EmulatedKernels, NormRotaryIsItsComposedForm) {
  for (const auto& [width, head] :
       {std::pair<int64_t, int64_t>{96, 96}, {96, 32}, {600, 600}, {6, 2}}) {
    const at::Tensor x = Random({2, 5, width}, 1), weight = Random({head}, 2);
    const at::Tensor angle = Random({5, width / 2}, 3).to(at::kFloat);
    const at::Tensor by_head = Random({3, head / 2}, 4).to(at::kFloat);
    for (const RotaryTable& table :
         {RotaryTable{.cos = angle.cos(), .sin = angle.sin()}, RotaryTable{},
          RotaryTable{.cos = by_head.cos(), .sin = by_head.sin(), .first = 2}}) {
      // Of the last kind, a layer norm.
      const at::Tensor bias = table.first > 0 ? Random({head}, 6) : at::Tensor();
      const bool turns = table.cos.defined();
      const at::Tensor longer = at::full({2, 9, width}, 7, x.options());
      const at::Tensor out = longer.narrow(1, 3, 5);
      ASSERT_EQ(emulated::NormRotary(
                    ElementOf(dtype()), x.const_data_ptr(), weight.const_data_ptr(),
                    bias.defined() ? bias.const_data_ptr() : nullptr,
                    turns ? table.cos.const_data_ptr<float>() : nullptr,
                    turns ? table.sin.const_data_ptr<float>() : nullptr, out.mutable_data_ptr(),
                    {.rows = 10,
                     .tokens = 5,
                     .width = width,
                     .head = head,
                     .first = table.first,
                     .angles = turns ? table.cos.size(1) : 1,
                     .batch_stride = x.stride(0),
                     .out_batch_stride = out.stride(0)},
                    1e-5f, nullptr),
                cudaSuccess);
      ExpectClose(out, NormRotaryComposed(x, weight, 1e-5, table, bias),
                  "head " + std::to_string(head));
      EXPECT_TRUE((longer.narrow(1, 0, 3) == 7).all().item<bool>());
      EXPECT_TRUE((longer.narrow(1, 8, 1) == 7).all().item<bool>());
    }
  }
}

// Frames whose results go into the inside of a buffer with a border.
emulated::Positions PositionsOf(const at::Tensor& x, const at::Tensor& out) {
  return {.frames = x.size(0),
          .height = x.size(1),
          .width = x.size(2),
          .channels = x.size(3),
          .out_frame = out.stride(0),
          .out_row = out.stride(1),
          .out_position = out.stride(2)};
}

TEST_P(EmulatedKernels, RmsNormSiluIsItsComposedForm) {
  for (const int64_t channels : {32, 37, 5}) {
    const at::Tensor x = Random({2, 3, 3, channels}, 1);
    for (const ChannelModulation& modulation :
         {ChannelModulation{}, ChannelModulation{.shift = Random({channels}, 2),
                               .scale_plus_one = Random({channels}, 3)}}) {
      const bool modulates = modulation.shift.defined();
      const at::Tensor buffer = at::full({2, 5, 5, channels}, 7, x.options());
      const at::Tensor out = buffer.narrow(1, 1, 3).narrow(2, 1, 3);
      ASSERT_EQ(
          emulated::RmsNormSilu(ElementOf(dtype()), x.const_data_ptr(),
                                modulates ? modulation.scale_plus_one.const_data_ptr() : nullptr,
                                modulates ? modulation.shift.const_data_ptr() : nullptr,
                                out.mutable_data_ptr(), PositionsOf(x, out), 1e-8f, nullptr),
          cudaSuccess);
      at::Tensor expected = at::empty_like(x);
      RmsNormSiluComposed(x, modulation, expected);
      ExpectClose(out, expected, "channels " + std::to_string(channels));
      EXPECT_TRUE((buffer.select(1, 0) == 7).all().item<bool>());
      EXPECT_TRUE((buffer.select(2, 4) == 7).all().item<bool>());
    }
  }
}

TEST_P(EmulatedKernels, GroupNormSiluIsItsComposedForm) {
  for (const auto& [channels, groups] : {std::pair<int64_t, int64_t>{64, 32}, {300, 3}, {7, 1}}) {
    const at::Tensor x = Random({2, 5, 7, channels}, 1);
    const FrameGroupNorm norm = {.groups = groups,
                                 .eps = 1e-5,
                                 .weight = Random({channels}, 2),
                                 .bias = Random({channels}, 3)};
    at::Tensor expected = at::empty_like(x);
    GroupNormSiluComposed(x, norm, expected);
    // 35 positions in blocks of 12, the last of 11.
    constexpr int64_t kBlocks = 3;
    const at::Tensor moments = at::empty({2, kBlocks, 2, channels}),
                     affine = at::empty({2, 2, channels});
    const at::Tensor buffer = at::full({2, 7, 9, channels}, 7, x.options());
    const at::Tensor out = buffer.narrow(1, 1, 5).narrow(2, 1, 7);
    ASSERT_EQ(emulated::GroupNormAffine(ElementOf(dtype()), x.const_data_ptr(),
                                        norm.weight.const_data_ptr(), norm.bias.const_data_ptr(),
                                        PositionsOf(x, x), groups, 1e-5f,
                                        moments.mutable_data_ptr<float>(), kBlocks,
                                        affine.mutable_data_ptr<float>(), nullptr),
              cudaSuccess);
    ASSERT_EQ(
        emulated::AffineSilu(ElementOf(dtype()), x.const_data_ptr(), affine.const_data_ptr<float>(),
                             2, out.mutable_data_ptr(), PositionsOf(x, out), nullptr),
        cudaSuccess);
    ExpectClose(out, expected, "channels " + std::to_string(channels));
    // The first frame's gains and shifts for both.
    ASSERT_EQ(
        emulated::AffineSilu(ElementOf(dtype()), x.const_data_ptr(), affine.const_data_ptr<float>(),
                             1, out.mutable_data_ptr(), PositionsOf(x, out), nullptr),
        cudaSuccess);
    AffineSiluComposed(x, affine.narrow(0, 0, 1), expected);
    ExpectClose(out, expected, "one for all, channels " + std::to_string(channels));
    EXPECT_TRUE((buffer.select(1, 0) == 7).all().item<bool>());
    EXPECT_TRUE((buffer.select(2, 8) == 7).all().item<bool>());
  }
}

TEST_P(EmulatedKernels, GroupNormModulateSiluIsItsComposedForm) {
  for (const auto& [frames, coarse] : {std::pair<int64_t, int64_t>{5, 3}, {4, 2}, {1, 1}}) {
    constexpr int64_t kChannels = 12, kGroups = 4, kBlocks = 3;
    const at::Tensor x = Random({frames, 6, 4, kChannels}, 1);
    const FrameGroupNorm norm = {.groups = kGroups,
                                 .eps = 1e-6,
                                 .weight = Random({kChannels}, 2),
                                 .bias = Random({kChannels}, 3)};
    const NearestModulation modulation = {.scale = Random({coarse, 3, 2, kChannels}, 4),
                                          .shift = Random({coarse, 3, 2, kChannels}, 5)};
    at::Tensor expected = at::empty_like(x), out = at::empty_like(x);
    GroupNormModulateSiluComposed(x, norm, modulation, expected);
    const at::Tensor moments = at::empty({1, kBlocks, 2, kChannels}),
                     affine = at::empty({1, 2, kChannels});
    ASSERT_EQ(
        emulated::GroupNormModulateSilu(
            ElementOf(dtype()), x.const_data_ptr(), norm.weight.const_data_ptr(),
            norm.bias.const_data_ptr(), modulation.scale.const_data_ptr(),
            modulation.shift.const_data_ptr(), out.mutable_data_ptr(), PositionsOf(x, out),
            {.frames = coarse, .height = 3, .width = 2}, kGroups, 1e-6f,
            moments.mutable_data_ptr<float>(), kBlocks, affine.mutable_data_ptr<float>(), nullptr),
        cudaSuccess);
    ExpectClose(out, expected, "frames " + std::to_string(frames));
  }
}

TEST_P(EmulatedKernels, FramesAsBytesIsItsComposedForm) {
  for (const int64_t count : {1, 255, 256, 259}) {
    const at::Tensor x = Random({count}, 1);
    x[0] = std::nan("");
    const at::Tensor buffer = at::full({count + 2}, 7, at::kByte);
    const at::Tensor out = buffer.narrow(0, 1, count);
    ASSERT_EQ(emulated::FramesAsBytes(ElementOf(dtype()), x.const_data_ptr(),
                                      out.mutable_data_ptr<uint8_t>(), count, nullptr),
              cudaSuccess);
    EXPECT_TRUE(at::equal(out, FramesAsBytesComposed(x))) << count;
    EXPECT_EQ(buffer[0].item<int>(), 7);
    EXPECT_EQ(buffer[count + 1].item<int>(), 7);
  }
}

INSTANTIATE_TEST_SUITE_P(All, EmulatedKernels,
                         ::testing::Combine(::testing::Values(at::kFloat, at::kHalf, at::kBFloat16),
                                            ::testing::ValuesIn(kSchedules)));

}  // namespace
}  // namespace kino::engine
