#include "engine/generate.h"

#include <algorithm>
#include <charconv>

#include "base/log.h"
#include "base/prng.h"
#include "engine/answer.h"
#include "engine/beam_search.h"
#include "engine/chat_message.h"
#include "engine/hand_over.h"
#include "engine/prepare.h"
#include "engine/request_span.h"
#include "wire/errors.h"
#include "wire/headers.h"
#include "wire/limits.h"

namespace baton::engine {
namespace {

using net::Task;

struct PromptState {
  std::string echo_text{};
  std::vector<int32_t> ids{};
  uint64_t first_id = 0;
  std::optional<std::vector<wire::LogprobRow>> rows{};  // prompt_logprobs, once known
  int32_t cached = 0;
};

// One request being answered.
class Run final : public Generation {
 public:
  Run(const Serving& serving, const net::Request& request) : s_(serving) {
    arrived_ns_ = request.arrived_ns ? request.arrived_ns : s_.clock->now_ns();
    trusted_ = trusts_params(*s_.config, request.headers);
    if (s_.tracer != nullptr) span_.emplace(s_.tracer, request, arrived_ns_);
    const auto header = request.headers.get(wire::kRequestId);
    if (header && header->size() <= wire::kRequestIdBytesMax && valid_utf8(*header)) request_id_ = *header;
    if (const auto tail = request.headers.get(wire::kDecodeTail)) {
      const auto [end, bad] = std::from_chars(tail->data(), tail->data() + tail->size(), decode_tail_);
      if (bad != std::errc() || end != tail->data() + tail->size()) decode_tail_ = 0;
    }
  }

  Result<> prepare(const Json& body, std::string_view text, const ReadAsked& read);
  const wire::Head& head() const override { return head_; }
  Task<> answer(net::ResponseWriter& out) override;
  std::function<void()> canceller() const override;

 private:
  Result<> add(std::vector<int32_t> prompt, std::string echo_text, HandOver& hand_over, bool only_prompt);
  void submit();
  void abort();
  void note(const TokenEvent& event);
  void end_on_stop_string(const Answer& answer);
  PromptState& prompt_of(int32_t choice) { return prompts_[static_cast<size_t>(choice / n_)]; }
  void add_echo(wire::Choice& choice);
  wire::Choice choice_of(const Answer& answer, Answer::Piece piece);
  void count_reasoning(size_t answer, const Answer::Piece& piece);
  std::string chunk(const TokenEvent& event);
  wire::Usage usage() const;
  net::Headers head_fields() const;
  Task<> answer_whole(net::ResponseWriter& out);
  Task<> answer_beams(net::ResponseWriter& out);
  Task<> send_whole(net::ResponseWriter& out, std::vector<wire::Choice> choices);
  bool searches_beams() const { return fields_.beam_search && !prefill_leg_; }
  Task<> answer_stream(net::ResponseWriter& out);
  Task<std::optional<TokenEvent>> first_event(net::ResponseWriter& out);
  Task<> refuse(net::ResponseWriter& out, const Error& error);
  void finished();
  void split(wire::Choice& choice);
  void count_tool_parser(bool called);
  void log_done() const;

  const Serving& s_;
  int64_t arrived_ns_;
  std::string request_id_;
  Asked asked_;
  wire::GenerateFields& fields_ = asked_.fields;
  wire::Head head_;
  bool prefill_leg_ = false;
  int32_t n_ = 1, decode_tail_ = 0;
  std::vector<Submission> submissions_;
  std::vector<PromptState> prompts_;
  std::vector<Answer> answers_;
  std::vector<ChatMessage> messages_;        // streaming, where asked_.format says so: one a choice
  std::vector<parse::MessageParser> reasoning_;  // the same, to count its tokens
  int64_t reasoning_tokens_ = 0, beam_tokens_ = 0;
  std::optional<BeamSearch> beams_;  // the one that runs
  std::vector<uint8_t> started_;     // streaming: the choice's first chunk went out
  std::vector<int64_t> text_offset_;
  std::shared_ptr<TokenMailbox> mailbox_ = std::make_shared<TokenMailbox>();
  std::optional<Waterfall> waterfall_;
  std::optional<RequestSpan> span_;
  std::unique_ptr<wire::KvParams> hand_over_;
  bool trusted_ = false;  // may its kv_transfer_params be read
};

Result<> Run::prepare(const Json& body, std::string_view text, const ReadAsked& read) {
  HandOver hand_over(s_, body.find("kv_transfer_params"), trusted_, request_id_);
  BATON_TRY(asked_, read(body, text));
  const bool only_prompt = asked_.prompts.size() == 1;
  for (AskedPrompt& p : asked_.prompts) BATON_OK(add(std::move(p.ids), std::move(p.echo_text), hand_over, only_prompt));
  if (request_id_.empty()) request_id_ = fields_.request_id.empty() ? uuid4() : fields_.request_id;
  head_ = {.id = asked_.id_prefix + request_id_, .model = submissions_.front().adapter ? submissions_.front().adapter->key.name : s_.name(), .created = unix_seconds(), .system_fingerprint = s_.fingerprint};
  const Submission& first = submissions_.front();
  asked_.shape->resolved(
      {.temperature = first.sampling.temperature, .top_p = first.sampling.top_p, .presence_penalty = first.sampling.presence_penalty,
       .frequency_penalty = first.sampling.frequency_penalty, .max_tokens = first.max_tokens});
  if (!fields_.unknown.empty())
    log_debug("request fields ignored", "request={} first={} count={}", head_.id, fields_.unknown[0], fields_.unknown.size());
  return {};
}

Result<> Run::add(std::vector<int32_t> prompt, std::string echo_text, HandOver& hand_over, bool only_prompt) {
  const bool prefill_leg = prefill_leg_ = hand_over.prefill_leg() && only_prompt;
  BATON_TRY(Submission submission, prepare_submission(s_, fields_, std::move(prompt), prefill_leg));
  submission.constraint = asked_.constraint;
  submission.constraint_begin = asked_.constraint_begin;
  if (fields_.beam_search && !prefill_leg) hand_over.give_up_if_offered("beam_search");
  bool plain = !fields_.logprobs && !fields_.prompt_logprobs && !asked_.echo && fields_.n == 1;
  // A split prompt: the decode worker computes the tail, from a whole block on; what is sampled at the front is no token of its
  // answer.
  const auto size = static_cast<int32_t>(submission.prompt.size()), block = s_.config->block_size;
  const int32_t front = decode_tail_ > 0 ? std::max(0, size - decode_tail_) / block * block : 0;
  if (prefill_leg && front > 0) {
    submission.prompt.resize(static_cast<size_t>(front));
    plain = false;
  }
  submission.send_first_token = prefill_leg && plain;
  if (only_prompt)
    submission.remote = hand_over.take(submission, plain, fields_.min_tokens);
  else
    hand_over.give_up_if_offered("several_prompts");
  if (submission.remote && submission.remote->push && front > 0) {  // as the prefill worker cuts it
    submission.remote->n_tokens = front;
    submission.remote->digest = prompt_digest(submission, static_cast<size_t>(front));
    submission.remote->takes_first_token = false;
  }
  n_ = submission.n;
  submission.first_choice = static_cast<int32_t>(submissions_.size()) * n_;
  submission.arrived_ns = arrived_ns_;
  submission.out = mailbox_;
  PromptState state{.echo_text = std::move(echo_text), .ids = submission.prompt};
  state.first_id = submission.first_id = s_.loop->reserve_ids(n_);
  if (prefill_leg) submission.promised = hand_over.promise(submission);
  for (int32_t i = 0; i < n_; ++i) answers_.emplace_back(*s_.tokenizer, fields_, submission.first_choice + i);
  prompts_.push_back(std::move(state));
  submissions_.push_back(std::move(submission));
  return {};
}

void Run::submit() {
  started_.resize(answers_.size());
  text_offset_.resize(answers_.size());
  if (asked_.format.active() && fields_.stream) {
    for (size_t i = 0; i < answers_.size(); ++i) messages_.emplace_back(asked_.format);
  }
  if (asked_.format.thinks()) {
    parse::MessageFormat thoughts = asked_.format;
    thoughts.tool_parser = nullptr;
    for (size_t i = 0; i < answers_.size(); ++i) reasoning_.emplace_back(thoughts);
  }
  if (searches_beams()) return;
  for (Submission& submission : submissions_) {
    submission.remote_request_id = head_.id;
    s_.loop->post([submission = std::move(submission)](Core& core) mutable { core.submit(std::move(submission)); });
  }
  submissions_.clear();
}

void Run::abort() {
  if (beams_) beams_->abort();
  for (const PromptState& prompt : prompts_) {
    // A prefill leg may have finished a moment ago: then its KV is kept for an answer that nobody will read.
    s_.loop->post([first = prompt.first_id, n = n_, leg = prefill_leg_](Core& core) {
      core.abort(first, n);
      if (leg) core.release_grant(first);
    });
  }
}

std::function<void()> Run::canceller() const {
  std::vector<uint64_t> ids;
  for (const PromptState& prompt : prompts_) ids.push_back(prompt.first_id);
  return [loop = s_.loop, mailbox = mailbox_, ids = std::move(ids), n = n_] {
    for (const uint64_t id : ids) loop->post([id, n](Core& core) { core.abort(id, n); });
    mailbox->close();
  };
}

void Run::note(const TokenEvent& event) {
  if (!event.first) return;
  if (!waterfall_) waterfall_ = event.first->waterfall;
  if (span_) span_->first_token(*waterfall_, s_.clock->now_ns());
  PromptState& prompt = prompt_of(event.choice);
  if (event.choice % n_ != 0) return;
  prompt.cached = event.first->cached_tokens;
  if (!fields_.prompt_logprobs || prompt.rows) return;
  auto& rows = prompt.rows.emplace();
  const bool as_ids = fields_.return_tokens_as_token_ids;
  // The first token has no prediction: its row holds the token alone and is written as null.
  rows.push_back({{prompt.ids[0], token_string(*s_.tokenizer, prompt.ids[0], as_ids), "", 0, 0}});
  for (const LogprobTable& table : event.first->prompt_logprobs) rows.push_back(logprob_row(*s_.tokenizer, table, as_ids));
}

void Run::end_on_stop_string(const Answer& answer) {
  if (!answer.stopped_by_string()) return;
  const uint64_t id = prompt_of(answer.index()).first_id + static_cast<uint64_t>(answer.index() % n_);
  s_.loop->post([id](Core& core) { core.finish_on_stop_string(id); });
}

wire::Choice Run::choice_of(const Answer& answer, Answer::Piece piece) {
  wire::Choice choice{.index = answer.index(), .text = std::move(piece.text), .logprobs = fields_.logprobs.has_value()};
  if (answer.done()) choice.stop = answer.stop();
  choice.rows = std::move(piece.rows);
  choice.top = fields_.logprobs.value_or(0);
  if (fields_.return_token_ids) choice.token_ids = std::move(piece.ids);
  return choice;
}

void Run::add_echo(wire::Choice& choice) {
  if (!asked_.echo) return;
  const PromptState& prompt = prompt_of(choice.index);
  choice.text = prompt.echo_text + choice.text;
  choice.no_content = false;
  if (!asked_.echo_rows || !choice.logprobs || !prompt.rows) return;
  choice.echo_rows = static_cast<int32_t>(prompt.rows->size());
  choice.rows.insert(choice.rows.begin(), prompt.rows->begin(), prompt.rows->end());
}

// The tokens of what the model thought, its closing tag not among them.
void Run::count_reasoning(size_t answer, const Answer::Piece& piece) {
  if (reasoning_.empty()) return;
  (void)reasoning_[answer].add(piece.text);
  if (reasoning_[answer].thinking()) reasoning_tokens_ += static_cast<int64_t>(piece.ids.size());
}

wire::Usage Run::usage() const {
  wire::Usage usage;
  int64_t cached = 0;
  for (const PromptState& prompt : prompts_) {
    usage.prompt_tokens += static_cast<int64_t>(prompt.ids.size());
    cached += prompt.cached;
  }
  for (const Answer& answer : answers_) usage.completion_tokens += answer.tokens();
  if (s_.config->prompt_tokens_details || asked_.cached_details) usage.cached_tokens = cached;
  usage.completion_tokens += beam_tokens_;
  usage.reasoning_tokens = reasoning_tokens_;
  return usage;
}

net::Headers Run::head_fields() const {
  net::Headers headers;
  if (s_.config->request_id_headers) headers.set("X-Request-Id", request_id_);
  if (waterfall_) {
    const auto ms = [](int64_t us) { return static_cast<double>(us) / 1000; };
    headers.set(wire::kTtft,
                fmt::format("queue={:.2f},prefill={:.2f},transfer={:.2f},first_step={:.2f}", ms(waterfall_->queue_us),
                            ms(waterfall_->prefill_us), ms(waterfall_->transfer_us), ms(waterfall_->first_step_us)));
    if (waterfall_->kv_bytes > 0 || waterfall_->kv_transport == "local") {
      headers.set(wire::kKv, fmt::format("bytes={},tokens={},transport={}", waterfall_->kv_bytes, waterfall_->kv_tokens,
                                         waterfall_->kv_transport));
    }
  }
  return headers;
}

Task<> Run::refuse(net::ResponseWriter& out, const Error& error) {
  co_await send_error(out, error, [this](const wire::ApiError& api) { return asked_.shape->error(api); });
}

// The first event decides between an HTTP error and a 200. nullopt: answered already, or the client is gone.
Task<std::optional<TokenEvent>> Run::first_event(net::ResponseWriter& out) {
  auto event = co_await mailbox_->pop();
  if (!event) {
    if (!out.cancel().cancelled()) co_await refuse(out, Error{Code::kUnavailable, "the engine is shutting down"});
    co_return std::nullopt;
  }
  if (event->finish != Finish::kError) co_return event;
  abort();
  co_await refuse(out, *event->error);
  co_return std::nullopt;
}

void Run::finished() {
  if (asked_.finished) std::exchange(asked_.finished, {})();
}

Task<> Run::answer_whole(net::ResponseWriter& out) {
  std::vector<wire::Choice> choices(answers_.size());
  std::vector<Answer::Piece> pieces(answers_.size());
  for (size_t live = answers_.size(); live > 0;) {
    auto event = co_await first_event(out);
    if (!event) co_return;
    const auto i = static_cast<size_t>(event->choice);
    if (answers_[i].done()) continue;
    note(*event);
    if (event->hand_over) hand_over_ = std::move(event->hand_over);
    Answer::Piece piece = answers_[i].add(*event);
    count_reasoning(i, piece);
    pieces[i].text += piece.text;
    std::move(piece.rows.begin(), piece.rows.end(), std::back_inserter(pieces[i].rows));
    pieces[i].ids.insert(pieces[i].ids.end(), piece.ids.begin(), piece.ids.end());
    if (!answers_[i].done()) continue;
    --live;
    end_on_stop_string(answers_[i]);
  }
  for (size_t i = 0; i < answers_.size(); ++i) {
    if (asked_.echo_only) pieces[i] = {};
    choices[i] = choice_of(answers_[i], std::move(pieces[i]));
    if (asked_.echo_only) choices[i].stop = {.finish_reason = "length"};
    choices[i].prompt_rows = prompt_of(choices[i].index).rows;
    if (fields_.return_token_ids) choices[i].prompt_token_ids = prompt_of(choices[i].index).ids;
    choices[i].prompt_text = asked_.prompts.front().shown;
    split(choices[i]);
    add_echo(choices[i]);
  }
  co_await send_whole(out, std::move(choices));
}

void Run::split(wire::Choice& choice) {
  if (!asked_.format.active()) return;
  split_whole(asked_.format, choice);
  count_tool_parser(!choice.tool_calls.empty());
}

void Run::count_tool_parser(bool called) {
  const parse::ToolParserRow* parser = asked_.format.tool_parser;
  if (parser && !parser->forced) s_.metrics->count_tool_parser(asked_.request_type, fields_.stream, called);
}

Task<> Run::send_whole(net::ResponseWriter& out, std::vector<wire::Choice> choices) {
  const std::string kv = hand_over_ ? wire::format_kv_params(*hand_over_) : "";
  net::Response response = net::Response::json(200, asked_.shape->whole(head_, choices, usage(), kv));
  finished();
  for (const auto& [name, value] : head_fields().fields()) response.headers.set(name, value);
  auto sent = co_await out.send(std::move(response));
  if (!sent) abort();
}

// Prompt by prompt.
Task<> Run::answer_beams(net::ResponseWriter& out) {
  std::vector<wire::Choice> choices;
  for (size_t p = 0; p < submissions_.size(); ++p) {
    beams_.emplace(s_, std::move(submissions_[p]), BeamOptions{.width = n_, .length_penalty = fields_.length_penalty});
    const auto found = co_await beams_->run();
    if (!found) {
      abort();
      if (!out.cancel().cancelled()) co_await refuse(out, found.error());
      co_return;
    }
    prompts_[p].cached = beams_->cached_tokens();
    if (!waterfall_) waterfall_ = beams_->waterfall();
    for (size_t i = 0; i < found->size(); ++i) {
      const Beam& beam = (*found)[i];
      beam_tokens_ += static_cast<int64_t>(beam.tokens.size()) + (beam.end ? 1 : 0);
      wire::Choice& choice = choices.emplace_back(beam_choice(*s_.tokenizer, fields_, beam));
      choice.index = static_cast<int32_t>(p) * n_ + static_cast<int32_t>(i);
      if (fields_.return_token_ids) choice.prompt_token_ids = prompts_[p].ids;
      split(choice);
      add_echo(choice);
    }
  }
  co_await send_whole(out, std::move(choices));
}

// All the server-sent events of one token event.
std::string Run::chunk(const TokenEvent& event) {
  const auto i = static_cast<size_t>(event.choice);
  Answer& answer = answers_[i];
  Answer::Piece piece = answer.add(event);
  count_reasoning(i, piece);
  end_on_stop_string(answer);
  if (asked_.echo_only) piece = {};
  wire::Choice choice = choice_of(answer, std::move(piece));
  if (asked_.echo_only && answer.done()) choice.stop = {.finish_reason = "length"};
  const PromptState& prompt = prompt_of(event.choice);
  const wire::Usage so_far{.prompt_tokens = static_cast<int64_t>(prompt.ids.size()), .completion_tokens = answer.tokens()};

  std::string out;
  const bool first = !started_[i];
  started_[i] = 1;
  if (first) {
    wire::Choice opening{.index = choice.index};
    if (fields_.return_token_ids) opening.prompt_token_ids = prompt.ids;
    opening.prompt_text = asked_.prompts.front().shown;
    out = asked_.shape->open(head_, opening, {.prompt_tokens = so_far.prompt_tokens});
  }
  const bool opened = !out.empty();
  if (!messages_.empty()) {
    std::vector<wire::Choice> parts = messages_[i].stream(std::move(choice));
    count_tool_parser(std::ranges::any_of(parts, [](const wire::Choice& part) { return !part.tool_calls.empty(); }));
    if (first && asked_.echo) parts.insert(parts.begin(), {.index = event.choice, .text = prompt.echo_text});
    for (const wire::Choice& part : parts) out += asked_.shape->chunk(head_, part, so_far);
    return out;
  }
  if (first) {
    add_echo(choice);
    if (!opened && fields_.return_token_ids) choice.prompt_token_ids = prompt.ids;
  }
  choice.text_offset = text_offset_[i];
  if (choice.logprobs) {
    for (const wire::LogprobRow& row : choice.rows) {
      for (char c : row.empty() ? std::string() : row[0].token) text_offset_[i] += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    }
  }
  return out + asked_.shape->chunk(head_, choice, so_far);
}

Task<> Run::answer_stream(net::ResponseWriter& out) {
  auto event = co_await first_event(out);
  if (!event) co_return;
  note(*event);
  net::Headers headers = head_fields();
  headers.set("Content-Type", wire::kSseContentType);
  headers.set("Cache-Control", "no-cache");
  if (auto began = co_await out.begin(200, std::move(headers)); !began) co_return;
  size_t live = answers_.size();
  std::string bytes;
  std::optional<wire::ApiError> failed;
  while (live > 0) {
    // Everything that is ready goes out in one write.
    for (; event; event = mailbox_->try_pop()) {
      if (event->finish == Finish::kError) {
        abort();
        failed = wire::api_error(*event->error);
        live = 0;
        break;
      }
      if (answers_[static_cast<size_t>(event->choice)].done()) continue;
      note(*event);
      bytes += chunk(*event);
      live -= answers_[static_cast<size_t>(event->choice)].done();
    }
    if (live == 0) break;
    if (!bytes.empty()) {  // a parser may have held everything back
      if (auto wrote = co_await out.write(std::exchange(bytes, {})); !wrote) co_return abort();
    }
    event = co_await mailbox_->pop();
    if (!event) {
      if (out.cancel().cancelled()) co_return;
      failed = wire::ApiError{.status = 503, .message = "the engine is shutting down", .type = {}, .param = {}};
      break;
    }
  }
  bytes += failed ? asked_.shape->fail(*failed) : asked_.shape->end(head_, usage());
  if (!failed) finished();
  if (auto wrote = co_await out.write(bytes); wrote) co_await out.finish();
}

void Run::log_done() const {
  const LogLevel level = s_.config->log_requests ? LogLevel::kInfo : LogLevel::kDebug;
  if (!log_enabled(level)) return;
  const wire::Usage u = usage();
  log_line(level, "request done",
           fmt::format("id={} prompt_tokens={} completion_tokens={} ms={:.1f}", head_.id, u.prompt_tokens, u.completion_tokens,
                       static_cast<double>(s_.clock->now_ns() - arrived_ns_) * 1e-6));
}

Task<> Run::answer(net::ResponseWriter& out) {
  submit();
  const auto watch = out.cancel().on_cancel([this] {
    abort();
    mailbox_->close();
  });
  if (searches_beams())
    co_await answer_beams(out);
  else if (fields_.stream)
    co_await answer_stream(out);
  else
    co_await answer_whole(out);
  if (span_) span_->done(request_id_, fields_, head_.model, usage(), s_.clock->now_ns());
  log_done();
}

}  // namespace

Result<std::unique_ptr<Generation>> prepare_generation(const Serving& serving, const net::Request& request, const Json& body,
                                                       const ReadAsked& read) {
  auto run = std::make_unique<Run>(serving, request);
  BATON_OK(run->prepare(body, request.body, read));
  return run;
}

Task<> serve_generate(const Serving& serving, const Api& api, net::Request& request, net::ResponseWriter& out) {
  const auto body = parse_body(request);
  if (!body) co_return co_await send_error(out, body.error(), api.error_json);
  if (auto able = check_generates(serving, api.name); !able) co_return co_await send_error(out, able.error(), api.error_json);
  Run run(serving, request);
  const auto read = [&](const Json& json, std::string_view text) { return api.read(serving, json, text); };
  if (auto ready = run.prepare(*body, request.body, read); !ready)
    co_return co_await send_error(out, ready.error(), api.error_json);
  co_await run.answer(out);
}

}  // namespace baton::engine
