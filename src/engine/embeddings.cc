#include "engine/embeddings.h"

#include <algorithm>
#include <cmath>

#include "base/prng.h"
#include "engine/admin.h"
#include "engine/generate.h"
#include "engine/prepare.h"
#include "wire/embeddings.h"
#include "wire/errors.h"
#include "wire/headers.h"
#include "wire/limits.h"

namespace baton::engine {
namespace {

Result<> check_dimensions(const Serving& s, const std::optional<int32_t>& asked) {
  const PoolingConfig& p = s.pooling;
  if (!asked) return {};
  if (!p.matryoshka) {
    return fail(Code::kInvalidArgument, "Model \"", s.config->model,
                "\" does not support matryoshka representation, changing output dimensions will lead to poor results.");
  }
  const auto& allowed = p.matryoshka_dimensions;
  if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), *asked) == allowed.end()) {
    std::string list;
    for (const int32_t d : allowed) list += cat(list.empty() ? "" : ", ", d);
    return fail(Code::kInvalidArgument, "Model \"", s.config->model, "\" only supports [", list,
                "] matryoshka dimensions, use other output dimensions will lead to poor results.");
  }
  return {};
}

struct Batch {
  std::vector<Submission> submissions;
  wire::EmbeddingRequest request;
  int64_t prompt_tokens = 0;
};

Result<Batch> prepare(const Serving& s, const Json& body) {
  Batch batch;
  BATON_TRY(batch.request, wire::parse_embedding_request(body));
  wire::EmbeddingRequest& r = batch.request;
  BATON_OK(check_model_name(s, r.model));
  BATON_OK(check_dimensions(s, r.dimensions));
  r.fields.model = r.model;
  r.fields.max_tokens = 1;
  const size_t n = r.chat ? 1 : r.inputs.size();
  for (size_t i = 0; i < n; ++i) {
    BATON_TRY(auto tokens, r.chat ? chat_tokens(s, *r.chat) : prompt_tokens(s, r.inputs[i], r.add_special_tokens));
    if (!r.fields.truncate_prompt_tokens && static_cast<int64_t>(tokens.size()) >= s.max_model_len) {
      return wire::refuse(wire::About{"input_tokens"}, "This model's maximum context length is ", s.max_model_len,
                          " tokens. However, you requested ", tokens.size(),
                          " tokens in the input for embedding generation. Please reduce the length of the input.");
    }
    BATON_TRY(Submission submission, prepare_submission(s, r.fields, std::move(tokens), false));
    submission.pooling = s.pooling.pooling;
    submission.first_choice = static_cast<int32_t>(i);
    batch.prompt_tokens += static_cast<int64_t>(submission.prompt.size());
    batch.submissions.push_back(std::move(submission));
  }
  return batch;
}

void finish(const PoolingConfig& p, const wire::EmbeddingRequest& r, std::vector<float>& x) {
  const int32_t keep = r.dimensions ? *r.dimensions : p.dimensions;
  if (keep > 0 && static_cast<size_t>(keep) < x.size()) x.resize(static_cast<size_t>(keep));
  if (!r.use_activation.value_or(p.normalize)) return;
  double sum = 0;
  for (const float v : x) sum += static_cast<double>(v) * static_cast<double>(v);
  const double length = std::max(std::sqrt(sum), 1e-12);
  for (float& v : x) v = static_cast<float>(static_cast<double>(v) / length);
}

net::Task<> answer(const Serving& s, net::Request& request, net::ResponseWriter& out, bool pooling) {
  if (!s.pooling.on) co_return co_await framework_error(out, 404);
  const auto body = parse_body(request);
  if (!body) co_return co_await send_error(out, body.error());
  if (const Json* task = pooling ? body->find("task") : nullptr; task && !task->is_null() && task->text != "embed") {
    const std::string message = cat("Unsupported task: ", json_string(task->text), " Supported tasks: ('embed',)");
    co_return co_await send_error(out, Error{.code = Code::kInvalidArgument, .message = message, .param = "task"});
  }
  auto batch = prepare(s, *body);
  if (!batch) co_return co_await send_error(out, batch.error());
  const std::string_view header = request.headers.get(wire::kRequestId).value_or("");
  const bool usable = !header.empty() && header.size() <= wire::kRequestIdBytesMax && valid_utf8(header);
  const wire::Head head{.id = cat(pooling ? "pooling-" : "embd-", usable ? std::string(header) : uuid4()),
                        .model = answered_name(s, batch->request.model),
                        .created = unix_seconds()};

  const auto mailbox = std::make_shared<TokenMailbox>();
  const size_t n = batch->submissions.size();
  const uint64_t first_id = s.loop->reserve_ids(static_cast<int32_t>(n));
  for (size_t i = 0; i < n; ++i) {
    Submission& submission = batch->submissions[i];
    submission.first_id = first_id + i;
    submission.arrived_ns = request.arrived_ns ? request.arrived_ns : s.clock->now_ns();
    submission.out = mailbox;
    s.loop->post([submission = std::move(submission)](Core& core) mutable { core.submit(std::move(submission)); });
  }
  const auto abort = [&s, mailbox, first_id, n] {
    s.loop->post([first_id, n](Core& core) { core.abort(first_id, static_cast<int32_t>(n)); });
    mailbox->close();
  };
  const auto watch = out.cancel().on_cancel(abort);
  std::vector<std::vector<float>> rows(n);
  for (size_t done = 0; done < n; ++done) {
    auto event = co_await mailbox->pop();
    if (!event && out.cancel().cancelled()) co_return;
    if (!event || event->error) {
      const Error error = event ? *event->error : Error{Code::kUnavailable, "the engine is shutting down"};
      abort();
      co_return co_await send_error(out, error);
    }
    std::vector<float>& row = rows[static_cast<size_t>(event->choice)];
    row = std::move(event->embedding);
    finish(s.pooling, batch->request, row);
  }
  const wire::Usage usage{.prompt_tokens = batch->prompt_tokens};
  co_await out.send(net::Response::json(200, wire::embedding_response(head, rows, batch->request.base64, usage, pooling)));
}

}  // namespace

net::Task<> embeddings(const Serving& s, net::Request& request, net::ResponseWriter& out) { return answer(s, request, out, false); }
net::Task<> pooled(const Serving& s, net::Request& request, net::ResponseWriter& out) { return answer(s, request, out, true); }

}  // namespace baton::engine
