#include "epp/stream.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/json.h"
#include "base/log.h"
#include "base/prng.h"
#include "epp/limits.h"
#include "wire/headers.h"
#include "wire/request_id.h"

namespace baton::epp {
namespace {

constexpr std::string_view kSubsetSpace = "envoy.lb.subset_hint", kSubsetKey = "x-gateway-destination-endpoint-subset";
constexpr std::string_view kServedSpace = "envoy.lb", kServedKey = "x-gateway-destination-endpoint-served";
constexpr std::string_view kDropReason = "x-llm-d-request-dropped-reason", kMarker = "x-went-into-resp-headers";

// What --echo-headers leaves out: between proxy and picker alone, or no longer true.
constexpr std::array<std::string_view, 17> kSystemOwned = {
    "x-llm-d-inference-fairness-id",
    "x-gateway-inference-fairness-id",
    "x-llm-d-inference-objective",
    "x-gateway-inference-objective",
    "x-llm-d-model-name-rewrite",
    "x-gateway-model-name-rewrite",
    "x-llm-d-slo-ttft-ms",
    "x-slo-ttft-ms",
    "x-llm-d-slo-tpot-ms",
    "x-slo-tpot-ms",
    "x-llm-d-video-fps",
    "x-llm-d-video-duration-seconds",
    "x-llm-d-video-resolution",
    kSubsetKey,
    kServedKey,
    kDropReason,
    "content-length",
};

std::string_view error_name(int status) {
  switch (status) {
    case 400:
      return "BadRequest";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "NotFound";
    case 408:
      return "RequestTimeout";
    case 412:
      return "PreconditionFailed";
    case 413:
      return "PayloadTooLarge";
    case 429:
      return "ResourceExhausted";
    case 503:
      return "ServiceUnavailable";
    default:
      return "Internal";
  }
}

bool held_back(BodyMode mode) { return mode == BodyMode::kBuffered || mode == BodyMode::kBufferedPartial; }
bool full_duplex(BodyMode mode) { return mode == BodyMode::kFullDuplex || mode == BodyMode::kGrpc; }

// Nothing else may be a header's name; an echo of it would be an answer that the proxy cannot read.
bool usable_name(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) { return c > ' ' && c < 0x7f; });
}

// Parsers go by the path; proxies that rewrite it say the original elsewhere.
std::string_view without_query(std::string_view path) { return path.substr(0, path.find('?')); }

}  // namespace

void Door::sweep() {
  const int64_t now = clock.now_ns();
  while (!waiting_.empty() && now - waiting_.front().since_ns >= options.body_timeout_ms * 1'000'000) {
    waiting_.front().stream->body_stalled();  // leaves the list
  }
}

Stream::Stream(Door& door, net::GrpcCall& call) : door_(door), call_(call), started_ns_(door.clock.now_ns()) {
  door_.metrics.opened();
}

Stream::~Stream() { stop_waiting(); }

template <class F>
void Stream::send(F write) {
  write(door_.message_);
  call_.write(door_.message_.view());
}

void Stream::on_message(std::string_view bytes) {
  if (state_ == State::kOver) return;
  const auto in = read_request(bytes);
  if (!in) return static_cast<void>(unfit(in.error().message));
  if (in->modes) modes_ = *in->modes;
  if (in->observability) return;  // the proxy listens to no answer
  switch (in->part) {
    case Part::kRequestHeaders:
      return on_request_headers(*in);
    case Part::kRequestBody:
      return on_request_body(*in);
    case Part::kRequestTrailers:
      return on_request_trailers();
    case Part::kResponseHeaders:
      return on_response_headers(*in);
    case Part::kResponseBody:
      return on_response_body(*in);
    case Part::kResponseTrailers:
      return on_response_trailers();
    case Part::kNone:
      return;  // a later protocol's message
  }
}

void Stream::on_half_close() {
  if (!finished_) call_.finish(Code::kOk);
  finished_ = true;
  state_ = State::kOver;
  stop_waiting();
}

void Stream::on_closed() {
  state_ = State::kOver;
  stop_waiting();
  door_.metrics.closed(code_, door_.clock.now_ns() - started_ns_);
  flight_.reset();
}

bool Stream::unfit(std::string_view what) {
  log_warn("ext_proc call ended: malformed", "peer={} x-request-id={} error=\"{}\"", call_.peer(), request_id_text_, what);
  door_.metrics.malformed();
  code_ = Code::kInvalidArgument;
  state_ = State::kOver, finished_ = true;
  stop_waiting();
  call_.finish(code_, what);
  return false;
}

// ---- the request

bool Stream::keep_head(const Inbound& in) {
  head_bytes_ = in.headers;
  std::string_view original, forwarded;
  fields_.reserve(32);
  size_t count = 0;
  const bool good = for_each_header(head_bytes_, [&](std::string_view key, std::string_view value) {
    if (++count > static_cast<size_t>(kHeadersMax) || !usable_name(key)) return;
    char* name = head_bytes_.data() + (key.data() - head_bytes_.data());
    for (size_t i = 0; i < key.size(); ++i) {
      if (name[i] >= 'A' && name[i] <= 'Z') name[i] = static_cast<char>(name[i] + ('a' - 'A'));
    }
    if (key == ":path") path_ = without_query(value);
    if (key == ":method") method_ = value;
    if (key.starts_with(':')) return;
    if (key == wire::kRequestId) request_id_ = value;
    if (key == "x-original-path") original = without_query(value);
    if (key == "x-forwarded-path") forwarded = without_query(value);
    fields_.push_back({key, value});
  });
  if (!good) return unfit("malformed header map");
  if (count > static_cast<size_t>(kHeadersMax)) return unfit("more headers than anyone needs");
  if (path_.empty()) path_ = !original.empty() ? original : !forwarded.empty() ? forwarded : "/v1/completions";
  if (wire::usable_request_id(request_id_)) {
    request_id_text_ = request_id_;
  } else {
    request_id_text_ = uuid4();
    own_request_id_ = true;
  }
  return true;
}

void Stream::on_request_headers(const Inbound& in) {
  if (state_ != State::kHead || !keep_head(in)) return;
  note_subset(in);
  if (in.end_of_stream) return without_body();
  picker::Head head{.method = method_, .path = path_, .headers = fields_, .request_id = request_id_text_, .post = call_.poster()};
  flight_ = door_.picker.begin(head);
  flight_->on_evict([this](picker::Refusal refusal) {
    if (state_ == State::kForwarded && !answer_ended_) refuse(refusal);
  });
  state_ = State::kBody;
  if (modes_.request == BodyMode::kNone || (modes_.request == BodyMode::kStreamed && !modes_.body_before_answer)) {
    return decide_unseen();  // the head goes on before a body is shown
  }
  wait_for_body();
  // The proxy keeps the head until the body was answered, but wants to hear that it may go on.
  if (held_back(modes_.request)) send([](ProtoWriter& out) { write_headers_reply(out, Part::kRequestHeaders, {}); });
}

void Stream::on_request_body(const Inbound& in) {
  if (state_ == State::kForwarded && modes_.request == BodyMode::kStreamed) {
    return go_on();
  }
  if (state_ == State::kDeciding && modes_.request == BodyMode::kStreamed) ++unanswered_;
  if (state_ == State::kHead) {
    return refuse({.status = 500,
                   .message = "no request headers came: the proxy's request_header_mode must be SEND",
                   .drop_reason = "",
                   .retry_after_s = 0});
  }
  if (state_ != State::kBody) return;  // some proxies say the end twice
  note_subset(in);
  if (auto refusal = flight_->feed(in.body)) return refuse(*refusal);
  if (modes_.request == BodyMode::kStreamed) {
    ++unanswered_;
    streamed_bytes_ += in.body.size();
    if (!in.end_of_stream && streamed_bytes_ < kStreamedBytes) return wait_for_body();
    return decide_unseen();
  }
  if (modes_.request == BodyMode::kBufferedPartial && !in.end_of_stream) {
    log_debug("the proxy's buffer is smaller than the body: routed by its beginning", "x-request-id={}", request_id_text_);
    return decide_unseen();
  }
  if (in.end_of_stream || modes_.request == BodyMode::kBuffered) return decide();
  wait_for_body();
}

void Stream::on_request_trailers() {
  if (state_ == State::kBody) {
    trailers_ = true;  // no body message said the end
    return modes_.request == BodyMode::kStreamed ? decide_unseen() : decide();
  }
  if (state_ == State::kDeciding && !full_duplex(modes_.request)) trailers_ = true;
  if (state_ == State::kForwarded) send([](ProtoWriter& out) { write_trailers_reply(out, Part::kRequestTrailers); });
}

void Stream::note_subset(const Inbound& in) {
  if (in.metadata.empty()) return;
  auto list = metadata_list(in.metadata, kSubsetSpace, kSubsetKey);
  if (!list) return;
  subset_.given = true;
  subset_.endpoints = std::move(*list);
  if (subset_.endpoints.size() > kSubsetMax) subset_.endpoints.resize(kSubsetMax);
}

// GET /v1/models.
void Stream::without_body() {
  stop_waiting();
  auto endpoint = door_.picker.any_endpoint(subset_);
  if (!endpoint) return refuse(endpoint.error());
  std::vector<SetHeader> set{{wire::kGatewayDestination, *endpoint}};
  std::vector<std::string_view> remove;
  for (std::string_view name : wire::kRoutingHeaders) {
    if (name != wire::kGatewayDestination && client_said(name)) remove.push_back(name);
  }
  add_own_headers(set);
  const HeadersReply reply{.set = set, .remove = remove, .clear_route_cache = true, .destination = *endpoint, .scores = {}};
  send([&](ProtoWriter& out) { write_headers_reply(out, Part::kRequestHeaders, reply); });
  state_ = State::kForwarded;
  drop_head();
}

void Stream::decide() {
  stop_waiting();
  state_ = State::kDeciding;
  flight_->decide(std::move(subset_), [this](std::expected<const picker::Choice*, picker::Refusal> choice) {
    if (state_ != State::kDeciding) return;  // the client has gone
    choice ? forward(**choice) : refuse(choice.error());
  });
}

// The proxy sends the head on before it has shown the whole body, or any of it: what there is must do.
void Stream::decide_unseen() {
  flight_->rest_unseen();
  decide();
}

bool Stream::client_said(std::string_view name) const {
  return std::ranges::find(fields_, name, &picker::HeaderField::name) != fields_.end();
}

void Stream::add_own_headers(std::vector<SetHeader>& set) const {
  if (own_request_id_) set.push_back({wire::kRequestId, request_id_text_});
  if (!door_.options.echo_headers) return;
  for (const auto& [name, value] : fields_) {
    const bool ours = std::ranges::find(kSystemOwned, name) != kSystemOwned.end() ||
                      std::ranges::find(wire::kRoutingHeaders, name) != std::end(wire::kRoutingHeaders) ||
                      std::ranges::find(set, name, &SetHeader::name) != set.end();
    if (!ours) set.push_back({name, value});
  }
}

void Stream::forward(const picker::Choice& choice) {
  const std::string& body = flight_->body();
  const bool held = held_back(modes_.request), ours = full_duplex(modes_.request), changed = flight_->body_changed();
  char length[24];
  std::vector<SetHeader> set{{wire::kGatewayDestination, choice.destination}};
  if (!body.empty() && (ours || changed)) {
    const auto end = std::to_chars(length, std::end(length), body.size()).ptr;
    set.push_back({"Content-Length", {length, static_cast<size_t>(end - length)}});
  }
  for (const auto& [name, value] : choice.set_headers) set.push_back({name, value});
  add_own_headers(set);
  std::vector<std::string_view> remove;
  for (const std::string& name : choice.remove_headers) {
    if (client_said(name)) remove.push_back(name);
  }
  const HeadersReply reply{
      .set = set, .remove = remove, .clear_route_cache = true, .destination = choice.destination, .scores = choice.scores};
  state_ = State::kForwarded;
  chosen_ = true;
  if (held) {
    send([&](ProtoWriter& out) {
      write_body_reply(out, Part::kRequestBody, reply, changed ? std::optional<std::string_view>(body) : std::nullopt);
    });
    body_sent();
  } else {
    send([&](ProtoWriter& out) { write_headers_reply(out, Part::kRequestHeaders, reply); });
    sending_ = ours;
    if (ours) send_body();
    for (; unanswered_ > 0; --unanswered_) go_on();
    if (!ours) body_sent();
  }
  drop_head();
}

// As much of it as may be queued; on_room() goes on.
void Stream::send_body() {
  const std::string_view body = flight_->body();
  do {
    const std::string_view piece = body.substr(body_sent_, kPieceBytes);
    body_sent_ += piece.size();
    send_pieces(Part::kRequestBody, piece, !trailers_ && body_sent_ == body.size());
  } while (body_sent_ < body.size() && call_.unsent_bytes() <= kBodyAheadBytes);
  body_sent_ < body.size() ? call_.want_room(kBodyAheadBytes / 2) : body_sent();
}

void Stream::on_room() {
  if (state_ == State::kForwarded && sending_) send_body();
}

// To a piece of a body that the proxy keeps and sends on itself.
void Stream::go_on() {
  send([](ProtoWriter& out) { write_body_reply(out, Part::kRequestBody, {}, std::nullopt); });
}

void Stream::body_sent() {
  sending_ = false;
  if (trailers_) send([](ProtoWriter& out) { write_trailers_reply(out, Part::kRequestTrailers); });
  std::string().swap(flight_->body());  // an answer may take an hour
}

void Stream::send_pieces(Part part, std::string_view bytes, bool end) {
  do {
    const std::string_view piece = bytes.substr(0, kPieceBytes);
    bytes.remove_prefix(piece.size());
    const bool last = end && bytes.empty();
    if (piece.empty() && !last) return;
    call_.write_pieces(StreamedBody(part, piece, last).pieces());
  } while (!bytes.empty());
}

void Stream::refuse(const picker::Refusal& refusal) {
  stop_waiting();
  state_ = State::kOver;
  std::vector<SetHeader> headers;
  const std::string retry = cat(refusal.retry_after_s);
  if (!refusal.drop_reason.empty()) headers.push_back({kDropReason, refusal.drop_reason});
  if (refusal.retry_after_s > 0) headers.push_back({"retry-after", retry});
  const std::string body = cat("inference error: ", error_name(refusal.status), " - ", refusal.message);
  send([&](ProtoWriter& out) { write_immediate(out, refusal.status, body, headers); });
  log_info("request refused", "x-request-id={} status={} reason={} message={}", request_id_text_, refusal.status,
           refusal.drop_reason.empty() ? "-" : refusal.drop_reason, json_string(refusal.message));
  if (flight_) flight_->finish(refusal.status);
}

void Stream::body_stalled() {
  door_.metrics.stalled();
  refuse({.status = 408,
          .message = cat("the client sent nothing of its body for ", door_.options.body_timeout_ms / 1000, " s"),
          .drop_reason = "",
          .retry_after_s = 0});
}

// ---- the answer

void Stream::on_response_headers(const Inbound& in) {
  if (answer_headers_seen_) return;
  answer_headers_seen_ = true;
  if (state_ != State::kForwarded) state_ = State::kForwarded, stop_waiting();  // the proxy answers by itself
  std::vector<SetHeader> set{{kMarker, "true"}};
  std::string_view content_type;
  const bool echo = door_.options.echo_headers;
  const bool good = for_each_header(in.headers, [&](std::string_view key, std::string_view value) {
    if (key == ":status") std::from_chars(value.data(), value.data() + value.size(), status_);
    if (key == "content-type") content_type = value;
    if (echo && !key.starts_with(':') && usable_name(key) && set.size() < static_cast<size_t>(kHeadersMax) &&
        std::ranges::find(kSystemOwned, key) == kSystemOwned.end()) {
      set.push_back({key, value});
    }
  });
  if (!good) return static_cast<void>(unfit("malformed header map"));
  if (chosen_) {
    if (!in.metadata.empty()) {
      if (auto served = metadata_list(in.metadata, kServedSpace, kServedKey); served && !served->empty()) {
        flight_->set_served(served->front());
      }
    }
    flight_->answer_head(status_, content_type);
    for (const auto& [name, value] : flight_->answer_headers()) set.push_back({name, value});
  }
  send([&](ProtoWriter& out) {
    write_headers_reply(out, Part::kResponseHeaders,
                        {.set = set, .remove = {}, .clear_route_cache = false, .destination = {}, .scores = {}});
  });
  if (!in.end_of_stream) return;
  if (chosen_) flight_->answer_bytes({}, true);
  answer_ended();
}

void Stream::on_response_body(const Inbound& in) {
  if (answer_ended_) return;
  const bool wanted = chosen_ && flight_->wants_answer();
  pass_on(in.body, wanted ? flight_->answer_bytes(in.body, in.end_of_stream) : in.body, in.end_of_stream);
  if (in.end_of_stream) answer_ended();
}

// One chunk of the answer, as its mode wants it back.
void Stream::pass_on(std::string_view bytes, std::string_view out_bytes, bool end) {
  if (full_duplex(modes_.response)) return send_pieces(Part::kResponseBody, out_bytes, end);
  const bool changed = out_bytes.data() != bytes.data() || out_bytes.size() != bytes.size();
  char length[24];
  std::vector<SetHeader> set;
  if (changed && held_back(modes_.response)) {  // its head has not gone out yet
    const auto stop = std::to_chars(length, std::end(length), out_bytes.size()).ptr;
    set.push_back({"content-length", {length, static_cast<size_t>(stop - length)}});
  }
  send([&](ProtoWriter& out) {
    write_body_reply(out, Part::kResponseBody,
                     {.set = set, .remove = {}, .clear_route_cache = false, .destination = {}, .scores = {}},
                     changed ? std::optional(out_bytes) : std::nullopt);
  });
}

void Stream::on_response_trailers() {
  if (!answer_ended_) {
    const bool wanted = chosen_ && flight_->wants_answer();
    const std::string_view rest = wanted ? flight_->answer_bytes({}, true) : std::string_view();
    if (full_duplex(modes_.response)) send_pieces(Part::kResponseBody, rest, false);
    answer_ended();
  }
  send([](ProtoWriter& out) { write_trailers_reply(out, Part::kResponseTrailers); });
}

void Stream::answer_ended() {
  answer_ended_ = true;
  if (chosen_) flight_->finish(status_);
}

// ---- bookkeeping

void Stream::wait_for_body() {
  const int64_t now = door_.clock.now_ns();
  if (waits_) {
    (*waits_)->since_ns = now;
    door_.waiting_.splice(door_.waiting_.end(), door_.waiting_, *waits_);
  } else {
    waits_ = door_.waiting_.insert(door_.waiting_.end(), {this, now});
  }
}

void Stream::stop_waiting() {
  if (waits_) door_.waiting_.erase(*waits_);
  waits_.reset();
}

void Stream::drop_head() {
  std::string().swap(head_bytes_);
  std::vector<picker::HeaderField>().swap(fields_);
  path_ = method_ = request_id_ = {};
}

}  // namespace baton::epp
