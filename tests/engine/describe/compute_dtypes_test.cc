#include "engine/describe/compute_dtypes.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kino::engine {
namespace {

const std::vector<std::string> kComponents = {"text_encoder", "transformer", "vae"};

ComputeDTypes Parsed(const std::string& text) {
  const auto dtypes = ComputeDTypes::Parse(text);
  EXPECT_TRUE(dtypes.ok()) << dtypes.status();
  return dtypes.value_or(ComputeDTypes());
}

TEST(ComputeDTypesTest, AutoGoesByTheDevice) {
  EXPECT_EQ(Parsed("auto"), ComputeDTypes());
  EXPECT_EQ(ComputeDTypes().On(/*is_gpu=*/false), ComputeDTypes(DType::kF32));
  EXPECT_EQ(ComputeDTypes().On(/*is_gpu=*/true), ComputeDTypes(DType::kBF16));
  EXPECT_EQ(Parsed("float16").On(true), ComputeDTypes(DType::kF16));
}

TEST(ComputeDTypesTest, AComponentMayHaveItsOwn) {
  const ComputeDTypes dtypes = Parsed("bfloat16,vae=float32,text_encoder=auto").On(true);
  EXPECT_EQ(dtypes.Of("vae"), DType::kF32);
  EXPECT_EQ(dtypes.Of("text_encoder"), DType::kBF16);
  EXPECT_EQ(dtypes.Of("transformer"), DType::kBF16);
  const ComputeDTypes alone = Parsed("vae=float32");
  EXPECT_EQ(alone.On(true).Of("transformer"), DType::kBF16);
  EXPECT_EQ(alone.On(true).Of("vae"), DType::kF32);
}

TEST(ComputeDTypesTest, IsWrittenAsItIsRead) {
  for (const char* text : {"auto", "float32", "bfloat16,vae=float32", "auto,vae=float16"})
    EXPECT_EQ(Parsed(text).ToString(), text);
}

TEST(ComputeDTypesTest, RefusesWhatItCannotRead) {
  for (const char* text : {"", "int8", "BF16", "float64", "vae", "vae=", "=float32", "float32,",
                           "float32,bfloat16", "vae=float32,vae=float16", "vae=none"})
    EXPECT_FALSE(ComputeDTypes::Parse(text).ok()) << text;
}

TEST(ComputeDTypesTest, ChecksComponentsAndTypes) {
  EXPECT_TRUE(Parsed("bfloat16,vae=float32").Check(kComponents).ok());
  EXPECT_TRUE(ComputeDTypes().Check(kComponents).ok());
  EXPECT_EQ(Parsed("attic=float32").Check(kComponents).message(),
            "dtype: component 'attic', expected one of text_encoder, transformer, vae");
  for (const DType none : {DType::kI8, DType::kF8E4M3, DType::kF64})
    EXPECT_FALSE(ComputeDTypes(none).Check(kComponents).ok());
}

}  // namespace
}  // namespace kino::engine
