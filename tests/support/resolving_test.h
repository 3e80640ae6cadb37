// Tests of what a request becomes by what is known of a model.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/describe/describe.h"

namespace kino::testing {

class ResolvingTest : public ::testing::Test {
 protected:
  engine::ResolvedRequest Resolve() const { return engine::ResolveRequest(model_, request_, 1); }
  // Each has a description.
  std::vector<std::string> ViolatedFields() const {
    std::vector<std::string> fields;
    for (const engine::FieldViolation& violation : Resolve().violations) {
      fields.push_back(violation.field);
      EXPECT_FALSE(violation.description.empty());
    }
    return fields;
  }

  engine::ModelDescription model_;
  engine::Request request_;
};

}  // namespace kino::testing
