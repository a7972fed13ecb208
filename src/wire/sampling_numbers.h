#pragma once
// The numbers that shape what is sampled, as vLLM takes them: of a request, and of a server's defaults for every request. nullopt
// where nothing is said. Read all, then check: what is no number is refused before what is out of its range.
// Source: facts sheet "engine" 1.4.
#include <cstdint>
#include <optional>

#include "wire/fields.h"

namespace baton::wire {

struct SamplingNumbers {
  std::optional<double> temperature, top_p, min_p, frequency_penalty, presence_penalty, repetition_penalty;
  std::optional<int32_t> top_k;  // 0 or -1 = off
};

void read_sampling_numbers(Fields& f, SamplingNumbers& out);
void check_sampling_numbers(Fields& f, const SamplingNumbers& numbers);  // their ranges, in vLLM's words

}  // namespace baton::wire
