#pragma once
// /inference/v1/generate: token ids in, token ids out, with vLLM's SamplingParams under "sampling_params".
// Requires: body parsed from `source` with kRequestJson. The request becomes a completion request. Pure values.
// Source: vLLM's entrypoints/serve/disagg; facts sheet "engine" 1.9.
#include <memory>
#include <string>

#include "wire/shape.h"

namespace baton::wire {

Result<std::string> completion_body_of_generate(const Json& body, std::string_view source);
std::unique_ptr<Shape> generate_shape(const GenerateFields& fields, const Json& body);  // body: as it came

}  // namespace baton::wire
