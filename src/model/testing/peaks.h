#pragma once
// Model::peaks() beside what the rows of logits say.
#include <gtest/gtest.h>

#include <span>

#include "model/model.h"

namespace baton::model::testing {

inline void expect_peaks(const Model& model, std::span<const float> logits) {
  const auto vocab = static_cast<size_t>(model.config().vocab);
  ASSERT_EQ(model.peaks().size(), logits.size() / vocab);
  for (size_t r = 0; r < model.peaks().size(); ++r) {
    const LogitPeak want = peak_of(logits.subspan(r * vocab, vocab)), got = model.peaks()[r];
    EXPECT_EQ(got.at, want.at) << "row " << r;
    EXPECT_EQ(got.value, want.value) << "row " << r;
    EXPECT_EQ(got.nan, want.nan) << "row " << r;
  }
}

}  // namespace baton::model::testing
