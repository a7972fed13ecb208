#pragma once
// From a parsed request to Submissions: template, tokens, sampling parameters with the model's defaults, and every check that
// needs the model. Errors carry vLLM's wording (facts sheet "engine" 1.2, 1.4). Pure but for the random seed; any thread.
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/serving.h"
#include "wire/openai.h"

namespace baton::engine {

Result<std::string> render_chat(const Serving& serving, const wire::ChatRequest& request);
Result<std::vector<int32_t>> chat_tokens(const Serving& serving, const wire::ChatRequest& request);
Result<std::vector<int32_t>> prompt_tokens(const Serving& serving, const wire::Prompt& prompt, bool add_special);

// One Submission without ids and mailbox. prefill_leg: min_tokens does not mask stop tokens (the sidecar sets min_tokens 1 and
// the decode leg judges the token by the client's own value).
Result<Submission> prepare_submission(const Serving& serving, const wire::GenerateFields& fields, std::vector<int32_t> prompt,
                                      bool prefill_leg);

// An error in a server of embeddings.
Result<> check_generates(const Serving& serving, std::string_view api);
Result<> check_model_name(const Serving& serving, std::string_view name);
// The name that answers bear to a request for `asked`: its adapter's, or the first served one.
std::string answered_name(const Serving& serving, std::string_view asked);

}  // namespace baton::engine
