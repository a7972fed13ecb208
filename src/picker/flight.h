#pragma once
// FlightImpl: one request's life in the picker (picker.h has the contract). Holds the configuration, cluster state and view it
// started with; its in-flight counts are on endpoint instances, so nothing that happens to the pool meanwhile can unbalance them.
// Owner: the door that began it; one thread, except Waiter's parts (admission.h).
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "picker/answer_reader.h"
#include "picker/body_reader.h"
#include "picker/core.h"
#include "picker/flight_trace.h"
#include "picker/picker.h"
#include "picker/request_head.h"

namespace baton::picker {

class FlightImpl final : public Flight {
 public:
  FlightImpl(Core& core, const Head& head);
  ~FlightImpl() override;

  std::optional<Refusal> feed(std::string_view bytes) override;
  std::optional<Refusal> feed_whole(std::string body, BodyReader* read) override;
  void rest_unseen() override { partial_ = true; }
  void decide(Subset subset, Done done) override;
  std::expected<const Choice*, Refusal> repick(bool blame_prefill) override;
  std::string& body() override { return body_; }
  bool body_changed() const override { return body_changed_; }
  std::string_view model() const override { return reader_.facts().model; }
  bool stream() const override { return reader_.facts().stream; }
  int64_t prompt_tokens() const override { return prompt_tokens_; }
  int64_t output_tokens() const override { return std::max(answer_.usage().completion, answer_.events_total()); }
  void answer_head(int status, std::string_view content_type) override;
  std::string_view answer_bytes(std::string_view bytes, bool last) override;
  bool wants_answer() const override;
  std::span<const std::pair<std::string, std::string>> answer_headers() const override { return answer_headers_; }
  void set_served(std::string_view endpoint) override;
  void on_evict(std::move_only_function<void(Refusal)> f) override;
  void finish(int status) override;

 private:
  using Picked = std::expected<const Choice*, Refusal>;
  // flight.cc: from the body to the decision
  std::optional<Refusal> read_body();
  void apply_rewrite();
  void ask_tokens(Done done);
  void know_prompt(const PromptTokens* found);
  void admit(Done done);
  void wait_for_room(Done done);
  void place(Done done);
  Refusal refuse(Refusal refusal);
  // flight_choose.cc: the decision and what follows from it
  Picked choose(bool again);
  void fill_loads(Scratch& scratch) const;
  void fill_predictions(Scratch& scratch) const;
  void match_prefix(Scratch& scratch) const;
  void gather(Scratch& scratch, route::StepLog& steps) const;
  route::Inquiry inquire(Scratch& scratch) const;
  int session_slot() const;
  void settle(const route::Verdict& verdict, const Scratch& scratch, bool again, int64_t begin_ns);
  void build_choice(const route::Verdict& verdict, const Scratch& scratch);
  void count_in_flight(const route::Verdict& verdict);
  void remember(const route::Verdict& verdict);
  void remember_media(const route::Verdict& verdict);
  void note_prediction(const Scratch& scratch);
  void log_decision(const route::Verdict& verdict, const Scratch& scratch, bool again, int64_t begin_ns);
  const route::Endpoint& endpoint(size_t index) const { return view_->endpoints[index]; }
  // flight_answer.cc: the answer
  void first_byte(int64_t now_ns);
  void learn();

  Core& core_;
  std::shared_ptr<const Live> live_;
  const route::Plan& plan_;
  std::shared_ptr<const View> view_;
  Prng prng_;
  const int64_t start_ns_;
  std::span<const HeaderField> headers_;  // the door's
  RequestHead head_;
  std::string request_id_, session_id_, fairness_id_, path_;
  std::function<void(std::move_only_function<void()>)> post_;
  double ttft_slo_ms_ = 0, tpot_slo_ms_ = 0;
  int64_t priority_ = 0;

  Shape shape_;
  int block_tokens_, chain_block_tokens_;  // of what is matched, and of chain_
  BodyReader reader_;
  std::string body_, target_;
  bool body_changed_ = false, rewritten_ = false, partial_ = false;
  size_t request_bytes_ = 0;
  int64_t prompt_tokens_ = 1;
  std::vector<uint64_t> chain_;
  route::KvPrompt kv_prompt_;  // where the plan has KV events and the prompt's tokens are known
  size_t kv_blocks_ = 0;
  bool precise_ = false;
  std::vector<route::MediaSpan> media_;  // of a prompt that came as token ids
  struct TokenWait {
    std::function<void(std::move_only_function<void()>)> post;
    std::move_only_function<void(Result<TokenSource::Found>)> resume;  // on our thread; dropped when we end
  };
  std::shared_ptr<TokenWait> token_wait_;
  Subset subset_;
  std::bitset<route::kEndpointsMax> excluded_;
  bool remote_allowed_ = true, had_prefill_ = false;
  int session_slot_ = -1;

  Series* series_ = nullptr;
  FlightTrace trace_;
  std::shared_ptr<Waiter> waiter_;
  std::move_only_function<void()> evict_;  // until there is a waiter
  int64_t decided_ns_ = 0, waited_ns_ = 0;
  Choice choice_;
  int primary_ = -1, prefill_ = -1;  // in view_
  InFlight on_primary_, on_prefill_;
  int64_t queued_tokens_ = 0, uncached_tokens_ = 0, cached_tokens_ = 0;  // where the prompt is computed, when we came
  int running_then_ = 0;

  int status_ = 0;
  bool streaming_ = false, answered_ = false, finished_ = false, counted_running_ = false;
  int64_t first_ns_ = 0, last_ns_ = 0, response_bytes_ = 0;  // the first two of the worker that answers now
  int64_t tokens_before_ = 0;                                // of the workers before it
  bool ttft_told_ = false;
  int64_t head_ns_ = 0, answering_ns_ = 0;  // when the answer began; our work on a stream's chunks
  AnswerReader answer_;
  std::string served_;
  std::vector<std::pair<std::string, std::string>> answer_headers_;
};

std::shared_ptr<BodyReader> begin_body_reader(const Core& core, std::string_view path);

}  // namespace baton::picker
