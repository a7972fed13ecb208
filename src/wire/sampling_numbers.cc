#include "wire/sampling_numbers.h"

namespace baton::wire {

void read_sampling_numbers(Fields& f, SamplingNumbers& out) {
  f.number("temperature", out.temperature);
  f.number("top_p", out.top_p);
  f.number("min_p", out.min_p);
  f.number("frequency_penalty", out.frequency_penalty);
  f.number("presence_penalty", out.presence_penalty);
  f.number("repetition_penalty", out.repetition_penalty);
  f.integer("top_k", out.top_k);
}

void check_sampling_numbers(Fields& f, const SamplingNumbers& n) {
  const auto in = [](const std::optional<double>& v, double low, double high) { return !v || (*v >= low && *v <= high); };
  f.require(n.temperature.value_or(0) >= 0, About{"temperature"}, "temperature must be non-negative, got ",
            n.temperature.value_or(0), ".");
  f.require(in(n.temperature, 0, 2), About{"temperature"}, "temperature must be in [0, 2], got ", n.temperature.value_or(0), ".");
  f.require(in(n.top_p, 0, 1) && n.top_p.value_or(1) > 0, About{"top_p"}, "top_p must be in (0, 1], got ", n.top_p.value_or(0),
            ".");
  f.require(in(n.min_p, 0, 1), "min_p must be in [0, 1], got ", n.min_p.value_or(0), ".");
  f.require(in(n.frequency_penalty, -2, 2), "frequency_penalty must be in [-2, 2], got ", n.frequency_penalty.value_or(0), ".");
  f.require(in(n.presence_penalty, -2, 2), "presence_penalty must be in [-2, 2], got ", n.presence_penalty.value_or(0), ".");
  f.require(n.repetition_penalty.value_or(1) > 0, "repetition_penalty must be greater than zero, got ",
            n.repetition_penalty.value_or(0), ".");
  f.require(n.top_k.value_or(0) >= -1, "top_k must be 0 (disable), or at least 1, got ", n.top_k.value_or(0), ".");
}

}  // namespace baton::wire
