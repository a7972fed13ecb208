#include "picker/flight.h"

#include <algorithm>
#include <thread>

#include "base/log.h"
#include "wire/headers.h"

namespace baton::picker {
namespace {

constexpr std::string_view kDefaultFlow = "default-flow";

BodyOptions body_options(const Core& core, const route::Plan& plan, Shape shape, int block_tokens) {
  BodyOptions out;
  out.shape = shape;
  out.blocks = plan.needs.prefix || plan.needs.kv_events;
  out.token_ids = plan.needs.kv_events;
  out.block_bytes = static_cast<size_t>(block_tokens) * 4;
  const int64_t by_tokens = plan.prefix.tokens_max / block_tokens;
  out.blocks_max = static_cast<size_t>(std::clamp<int64_t>(std::min(plan.prefix.blocks_max, by_tokens), 1, 1 << 20));
  out.bytes_max = core.options.body_bytes_max;
  return out;
}

Refusal bad_request(const Error& error) {
  return {.status = error.code == Code::kResourceExhausted ? 413 : 400,
          .message = error.message,
          .drop_reason = "",
          .retry_after_s = 0};
}

}  // namespace

FlightImpl::FlightImpl(Core& core, const Head& head)
    : core_(core),
      live_(core.live()),
      plan_(*live_->plan),
      prng_(core.prng()),
      start_ns_(core.clock.now_ns()),
      headers_(head.headers),
      head_(read_head(head.headers, plan_)),
      request_id_(head.request_id),
      path_(head.path),
      post_(head.post),
      shape_(shape_of(head.path, plan_.parsers)),
      block_tokens_(core.prefix_block_tokens(plan_)),
      chain_block_tokens_(block_tokens_),
      reader_(body_options(core, plan_, shape_, block_tokens_)) {
  trace_.begin(core_.options.tracer, head, start_ns_);
  fairness_id_ = head_.fairness_id.empty() ? kDefaultFlow : head_.fairness_id;
  session_id_ = head_.session_id;
  ttft_slo_ms_ = head_.ttft_slo_ms;
  tpot_slo_ms_ = head_.tpot_slo_ms;
  // Only there can another worker prefill: the sidecar speaks P/D on these routes.
  remote_allowed_ = shape_ == Shape::kChat || shape_ == Shape::kCompletions || shape_ == Shape::kResponses ||
                    shape_ == Shape::kAnthropic || shape_ == Shape::kVllmGenerate;
  if (const auto objective = live_->priorities.find(head_.objective); objective != live_->priorities.end())
    priority_ = objective->second;
}

FlightImpl::~FlightImpl() {
  if (!finished_ && series_ != nullptr) finish(499);
  on_primary_.release();
  on_prefill_.release();
  if (token_wait_) token_wait_->resume = nullptr;
  if (waiter_) {
    waiter_->resume = nullptr;
    waiter_->evict = nullptr;
    core_.admission.leave(*waiter_);
  } else {
    core_.admission.poke();
  }
}

std::optional<Refusal> FlightImpl::feed(std::string_view bytes) {
  if (auto read = reader_.feed(bytes); !read) return bad_request(read.error());
  // The length that is claimed saves copying a growing body, but what has come says how far it is believed.
  if (const size_t size = body_.size() + bytes.size(); size > body_.capacity()) {
    body_.reserve(std::max({size, 2 * body_.capacity(), std::min(head_.body_bytes, kBodyBelieved * size)}));
  }
  body_.append(bytes);
  return std::nullopt;
}

std::optional<Refusal> FlightImpl::feed_whole(std::string body, BodyReader* read) {
  if (!body_.empty()) return feed(body);
  // Unless the configuration has changed meanwhile.
  const bool known = read != nullptr && read->bytes() == body.size() && read->options() == reader_.options();
  if (known) reader_ = std::move(*read);
  if (auto done = reader_.feed(known ? std::string_view() : body); !done) return bad_request(done.error());
  body_ = std::move(body);
  return std::nullopt;
}

std::shared_ptr<BodyReader> begin_body_reader(const Core& core, std::string_view path) {
  const auto live = core.live();
  const route::Plan& plan = *live->plan;
  return std::make_shared<BodyReader>(body_options(core, plan, shape_of(path, plan.parsers), core.prefix_block_tokens(plan)));
}

Refusal FlightImpl::refuse(Refusal refusal) {
  if (series_ == nullptr) series_ = &core_.metrics.series(model(), target_, fairness_id_, priority_);
  trace_.placed(refusal.message);
  finish(refusal.status);
  return refusal;
}

std::optional<Refusal> FlightImpl::read_body() {
  if (shape_ == Shape::kRefused)
    return Refusal{.status = 400, .message = cat("no parser takes the path ", path_), .drop_reason = "", .retry_after_s = 0};
  if (!partial_) {
    if (auto done = reader_.finish(); !done) return bad_request(done.error());
  }
  request_bytes_ = partial_ ? std::max(body_.size(), head_.body_bytes) : body_.size();
  prompt_tokens_ = reader_.facts().prompt_tokens();
  // Of what is not seen, most is prompt.
  if (partial_)
    prompt_tokens_ = std::max(prompt_tokens_, static_cast<int64_t>(std::min(request_bytes_, core_.options.body_bytes_max) / 4));
  // A name that is cut off is none.
  if (!partial_ || !reader_.facts().model_values.empty()) target_ = reader_.facts().model;
  if (const ByteRange f = reader_.facts().features; plan_.needs.kv_events && f.end > f.begin && f.end <= body_.size())
    media_ = read_media_features(std::string_view(body_).substr(f.begin, f.end - f.begin));
  return std::nullopt;
}

// The proxy's own rewrite, by header, and then the cluster's rules.
void FlightImpl::apply_rewrite() {
  if (shape_ == Shape::kPassthrough || partial_) return;
  if (!head_.model_rewrite.empty()) target_ = head_.model_rewrite;
  if (!live_->rewrites.empty()) {
    if (const auto match = live_->rewrites.apply(target_, prng_)) {
      core_.metrics.count_rewrite(match->rewrite, target_, match->model);
      target_ = match->model;
    }
  }
  rewritten_ = reader_.facts().has_model && target_ != reader_.facts().model;
  const std::optional<std::string_view> model = rewritten_ ? std::optional<std::string_view>(target_) : std::nullopt;
  if (!reader_.wants_edit(model)) return;
  if (!reader_.facts().cuts.empty()) log_warn("kv_transfer_params of a client cut out", "x-request-id={}", request_id_);
  body_ = reader_.edited(body_, model);
  body_changed_ = true;
}

void FlightImpl::decide(Subset subset, Done done) {
  decided_ns_ = core_.clock.now_ns();
  subset_ = std::move(subset);
  if (!core_.options.subset_filter) subset_ = {};
  if (auto bad = read_body()) return done(std::unexpected(refuse(*std::move(bad))));
  apply_rewrite();
  trace_.orchestrate(model(), target_, priority_, decided_ns_);
  series_ = &core_.metrics.series(model(), target_, fairness_id_, priority_);
  const bool text = !partial_ && reader_.facts().token_ids.empty() && reader_.facts().prompt != PromptKind::kNone;
  if (live_->kv != nullptr && live_->tokens != nullptr && text && post_ && TokenSource::can(shape_))
    return ask_tokens(std::move(done));
  know_prompt(nullptr);
  admit(std::move(done));
}

void FlightImpl::ask_tokens(Done done) {
  token_wait_ = std::make_shared<TokenWait>();
  token_wait_->post = post_;
  token_wait_->resume = [this, done = std::move(done)](Result<TokenSource::Found> found) mutable {
    know_prompt(found ? found->get() : nullptr);
    admit(std::move(done));
  };
  const auto take = [](TokenWait& wait, Result<TokenSource::Found> found) {
    if (auto resume = std::exchange(wait.resume, nullptr)) resume(std::move(found));
  };
  live_->tokens->ask(
      {.shape = shape_, .model = target_, .body = body_, .media = reader_.facts().multimodal},
      [take, wait = token_wait_, ours = std::this_thread::get_id()](Result<TokenSource::Found> found) mutable {
        if (std::this_thread::get_id() == ours) return take(*wait, std::move(found));  // at once
        TokenWait& to = *wait;
        to.post([take, wait = std::move(wait), found = std::move(found)]() mutable { take(*wait, std::move(found)); });
      });
}

// Where the prompt's tokens are not known, the approximate index stands in for the precise one; it learns of every prompt that
// may need it.
void FlightImpl::know_prompt(const PromptTokens* found) {
  const BodyFacts& facts = reader_.facts();
  const std::vector<uint32_t>& ids = found != nullptr ? found->ids : facts.token_ids;
  precise_ = live_->kv != nullptr && !ids.empty();
  if (precise_) {
    block_tokens_ = static_cast<int>(plan_.kv_events.block_tokens);
    kv_prompt_ =
        live_->kv->index.keys(target_, ids, {.media = found != nullptr ? found->media : media_, .salt = facts.salt_text});
    kv_blocks_ = ids.size() / static_cast<size_t>(block_tokens_);
    if (found != nullptr) prompt_tokens_ = std::max<int64_t>(1, found->total);
  }
  if ((plan_.needs.prefix || plan_.needs.kv_events) && (!precise_ || found != nullptr))
    chain_ = reader_.chain(core_.hash_seed, target_);
  reader_.keep_facts();  // an answer may take an hour
}

void FlightImpl::admit(Done done) {
  if (core_.stopped) {
    return done(std::unexpected(
        refuse({.status = 503, .message = "shutting down", .drop_reason = "rejected-shutting-down", .retry_after_s = 1})));
  }
  if (plan_.flow_control.enabled && post_) return wait_for_room(std::move(done));
  if (priority_ < 0 && core_.admission.saturation() >= 1) {
    return done(std::unexpected(refuse({.status = 429,
                                        .message = "system saturated, sheddable request dropped",
                                        .drop_reason = "rejected-saturated",
                                        .retry_after_s = 1})));
  }
  place(std::move(done));
}

namespace {
// Facts sheet "epp" 1.6.
Refusal refusal_of(Outcome outcome, bool pool_empty) {
  switch (outcome) {
    case Outcome::kRejectedCapacity:
      return {.status = 429, .message = "too many requests wait", .drop_reason = "rejected-saturated", .retry_after_s = 1};
    case Outcome::kEvictedTtl:
      return {.status = pool_empty ? 503 : 429,
              .message = "no room came in time",
              .drop_reason = "rejected-ttl-expired",
              .retry_after_s = 2};
    case Outcome::kRejectedNoEndpoints:
    case Outcome::kEvictedNoEndpoints:
      return {.status = 503, .message = "no endpoints", .drop_reason = "rejected-no-endpoints", .retry_after_s = 5};
    case Outcome::kEvictedCancelled:
      return {
          .status = 503, .message = "the request was cancelled", .drop_reason = "rejected-context-cancelled", .retry_after_s = 0};
    case Outcome::kShutdown:
      return {.status = 503, .message = "shutting down", .drop_reason = "rejected-shutting-down", .retry_after_s = 1};
    case Outcome::kDispatched:
      break;
  }
  return {.status = 500, .message = "no such outcome", .drop_reason = "", .retry_after_s = 0};
}
}  // namespace

void FlightImpl::wait_for_room(Done done) {
  waiter_ = std::make_shared<Waiter>();
  waiter_->post = post_;
  waiter_->series = series_;
  waiter_->evict = std::move(evict_);
  auto shared_done = std::make_shared<Done>(std::move(done));
  const auto go_on = [this, shared_done](Outcome outcome) {
    waited_ns_ = core_.clock.now_ns() - decided_ns_;
    if (outcome == Outcome::kDispatched) return place(std::move(*shared_done));
    const bool empty = core_.pool.view()->endpoints.empty();
    (*shared_done)(std::unexpected(refuse(refusal_of(outcome, empty))));
  };
  waiter_->resume = go_on;
  const auto outcome = core_.admission.enter(waiter_, {.priority = priority_,
                                                       .flow = fairness_id_,
                                                       .bytes = static_cast<int64_t>(body_.size()),
                                                       .input_tokens = prompt_tokens_,
                                                       .ttl_ms = -1,
                                                       .ttft_slo_ms = ttft_slo_ms_});
  if (!outcome) return;
  waiter_->resume = nullptr;
  go_on(*outcome);
}

void FlightImpl::place(Done done) {
  auto picked = choose(false);
  if (waiter_) core_.admission.placed(*waiter_);
  core_.metrics.observe(MetricId::kRequestProcessing, static_cast<double>(core_.clock.now_ns() - decided_ns_) * 1e-9);
  if (!picked) return done(std::unexpected(refuse(picked.error())));
  trace_.placed();
  done(picked);
}

std::expected<const Choice*, Refusal> FlightImpl::repick(bool blame_prefill) {
  if (primary_ < 0)
    return std::unexpected(Refusal{.status = 500, .message = "nothing was picked", .drop_reason = "", .retry_after_s = 0});
  if (blame_prefill && prefill_ >= 0)
    excluded_.set(static_cast<size_t>(prefill_));
  else
    excluded_.set(static_cast<size_t>(primary_));
  had_prefill_ = had_prefill_ || prefill_ >= 0;
  on_primary_.release();
  on_prefill_.release();
  if (first_ns_ != 0) {  // in the middle of its answer: the prompt, and what was said of it, is computed anew
    tokens_before_ = output_tokens();
    first_ns_ = last_ns_ = waited_ns_ = 0;
    decided_ns_ = core_.clock.now_ns();
  }
  auto picked = choose(true);
  if (!picked && remote_allowed_ && had_prefill_) {
    // Every decode worker failed while another prefilled for it; perhaps it was the prefill side. Once more, without hand-over.
    remote_allowed_ = false;
    excluded_.reset();
    picked = choose(true);
  }
  return picked;
}

void FlightImpl::on_evict(std::move_only_function<void(Refusal)> f) {
  auto& evict = waiter_ ? waiter_->evict : evict_;
  evict = [f = std::move(f)]() mutable {
    f({.status = 429, .message = "request evicted by flow control", .drop_reason = "evicted", .retry_after_s = 1});
  };
}

}  // namespace baton::picker
