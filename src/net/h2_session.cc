#include "net/h2_session.h"

#include <nghttp2/nghttp2.h>

#include "base/result.h"
#include "net/spares.h"

namespace baton::net {
namespace {

constexpr uint8_t kDrainPing[8] = {'d', 'r', 'a', 'i', 'n', 0, 0, 0};

nghttp2_nv pair_of(std::string_view name, std::string_view value) {
  auto bytes = [](std::string_view s) { return reinterpret_cast<uint8_t*>(const_cast<char*>(s.data())); };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

std::string_view text(const uint8_t* data, size_t n) { return {reinterpret_cast<const char*>(data), n}; }

}  // namespace

bool valid_h2_field(std::string_view name, std::string_view value) {
  auto bytes = [](std::string_view s) { return reinterpret_cast<const uint8_t*>(s.data()); };
  return nghttp2_check_header_name(bytes(name), name.size()) != 0 && nghttp2_check_header_value(bytes(value), value.size()) != 0;
}

bool RateLimit::take() {
  if (left_ > 0) return --left_, true;
  auto now = std::chrono::steady_clock::now();
  double earned = std::chrono::duration<double>(now - filled_).count() * per_second_;
  if (earned < 1) return false;
  filled_ = now;
  left_ = static_cast<int>(std::min<double>(earned, burst_)) - 1;
  return true;
}

void H2Output::copy(const void* data, size_t n) {
  if (n == 0) return;
  if (pieces_.empty() || pieces_.back().data) pieces_.push_back({nullptr, block_.size(), 0});
  block_.append(static_cast<const char*>(data), n);
  pieces_.back().size += n;
  bytes_ += n;
}

void H2Output::refer(const void* data, size_t n) {
  pieces_.push_back({static_cast<const char*>(data), 0, n});
  bytes_ += n;
}

void H2Output::iovecs(std::vector<iovec>& out) const {
  out.clear();
  for (const Piece& p : pieces_) {
    const char* data = p.data ? p.data : block_.data() + p.at;
    out.push_back({const_cast<char*>(data), p.size});
  }
}

struct H2Session::Callbacks {
  static H2Session& self(void* user) { return *static_cast<H2Session*>(user); }
  static H2Stream* stream(nghttp2_session* session, int32_t id) {
    return static_cast<H2Stream*>(nghttp2_session_get_stream_user_data(session, id));
  }

  static int begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    H2Session& s = self(user);
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    H2Stream* made = s.stopped_ ? nullptr : s.host_.make_stream();
    if (!made) {
      nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
      return 0;
    }
    made->session_ = &s;
    made->id_ = frame->hd.stream_id;
    made->index_ = s.streams_.size();
    s.streams_.push_back(made);
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, made);
    return 0;
  }

  static int header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                    const uint8_t* value, size_t value_size, uint8_t, void* user) {
    H2Session& s = self(user);
    H2Stream* at = stream(session, frame->hd.stream_id);
    if (!at) return 0;
    at->head_bytes_ += name_size + value_size + 32;  // as RFC 9113 section 6.5.2 counts
    if (at->head_bytes_ > s.header_bytes_max_) {
      at->head_too_large_ = true;
      if (at->head_bytes_ <= kH2HeaderOverrun * s.header_bytes_max_) return 0;
      s.broken_ = "a header block far over the limit";
      return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (!at->head_done_ && !at->closed_) at->on_field(text(name, name_size), text(value, value_size));
    return 0;
  }

  static int frame_received(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    H2Session& s = self(user);
    const auto& hd = frame->hd;
    bool end = hd.flags & NGHTTP2_FLAG_END_STREAM;
    switch (hd.type) {
      case NGHTTP2_HEADERS:
      case NGHTTP2_DATA: {
        H2Stream* at = stream(session, hd.stream_id);
        if (hd.type == NGHTTP2_DATA && hd.length == 0 && !end && !s.controls_.take()) s.stop("too many empty DATA frames");
        if (!at || at->closed_) return 0;
        if (hd.type == NGHTTP2_HEADERS && !at->head_done_) {
          at->head_done_ = true;
          at->request_ended_ = end;
          at->on_head();
        }
        if (end && !at->closed_) {
          at->request_ended_ = true;
          at->on_end();
        }
        return 0;
      }
      case NGHTTP2_SETTINGS:
        s.established_ = true;
        if (!(hd.flags & NGHTTP2_FLAG_ACK) && !s.controls_.take()) s.stop("too many SETTINGS frames");
        return 0;
      case NGHTTP2_PING:
        if (!(hd.flags & NGHTTP2_FLAG_ACK)) {
          if (!s.controls_.take()) s.stop("too many PING frames");
        } else if (s.draining_ && !s.last_goaway_) {
          s.last_goaway_ = true;  // what the peer opened before it saw the first GOAWAY has arrived
          nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session), NGHTTP2_NO_ERROR,
                                nullptr, 0);
        }
        return 0;
      case NGHTTP2_RST_STREAM:
        if (H2Stream* at = stream(session, hd.stream_id); at && !at->responded_ && !s.resets_.take()) {
          s.stop("too many streams opened and reset");
        }
        return 0;
      default:
        return 0;
    }
  }

  static int data(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* bytes, size_t size, void* user) {
    H2Session& s = self(user);
    s.uncredited_ += static_cast<uint32_t>(size);
    H2Stream* at = stream(session, id);
    if (!at || at->closed_) return 0;
    at->uncredited_ += static_cast<uint32_t>(size);
    at->on_data(text(bytes, size));
    if (!at->closed_ && s.owes_credit(*at)) s.credit(*at);
    return 0;
  }

  static int stream_closed(nghttp2_session* session, int32_t id, uint32_t, void* user) {
    if (H2Stream* at = stream(session, id)) self(user).close(*at);
    return 0;
  }

  static ssize_t read(nghttp2_session* session, int32_t id, uint8_t*, size_t size, uint32_t* flags, nghttp2_data_source* source,
                      void*) {
    auto& at = *static_cast<H2Stream*>(source->ptr);
    size_t left = at.unsent(), taken = std::min(left, size);
    if (left == 0 && !at.finished_) {
      at.deferred_ = true;
      return NGHTTP2_ERR_DEFERRED;
    }
    *flags = NGHTTP2_DATA_FLAG_NO_COPY;
    if (taken == left && at.finished_) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
      if (!at.trailers_.empty()) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        std::vector<nghttp2_nv> fields;
        for (const auto& [name, value] : at.trailers_) fields.push_back(pair_of(name, value));
        if (nghttp2_submit_trailer(session, id, fields.data(), fields.size()) != 0) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
      }
    }
    return static_cast<ssize_t>(taken);
  }

  static int send_data(nghttp2_session*, nghttp2_frame*, const uint8_t* head, size_t size, nghttp2_data_source* source,
                       void* user) {
    H2Session& s = self(user);
    auto& at = *static_cast<H2Stream*>(source->ptr);
    const char* payload = at.out_.data() + at.out_at_;
    s.output_->copy(head, 9);
    if (s.copy_all_ || size < kH2ReferBytes) {
      s.output_->copy(payload, size);
    } else {
      s.output_->refer(payload, size);
    }
    at.out_at_ += size;
    s.unsent_ -= size;
    bool room = at.wants_room_ && at.unsent() <= at.room_;
    if (room || s.owes_credit(at) || (at.unsent() == 0 && at.out_.capacity() > kH2KeptBytes)) s.drained_.push_back(&at);
    if (s.output_->bytes() < kH2SendBytes) return 0;
    s.full_ = true;
    return NGHTTP2_ERR_PAUSE;
  }

  // An answer that is complete before its request: tell the peer to send no more (RFC 9113 section 8.1).
  static int frame_sent(nghttp2_session* session, const nghttp2_frame* frame, void*) {
    const auto& hd = frame->hd;
    if (!(hd.flags & NGHTTP2_FLAG_END_STREAM) || (hd.type != NGHTTP2_HEADERS && hd.type != NGHTTP2_DATA)) return 0;
    H2Stream* at = stream(session, hd.stream_id);
    if (at && !at->request_ended_) nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, hd.stream_id, NGHTTP2_NO_ERROR);
    return 0;
  }
};

H2Session::H2Session(Host& host, const H2Options& options)
    : host_(host),
      header_bytes_max_(options.header_bytes_max),
      resets_(options.resets_burst, options.resets_per_s),
      controls_(kH2ControlsBurst, kH2ControlsPerS),
      credit_bytes_(options.window_bytes / kH2CreditShare) {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_option* option = nullptr;
  BATON_CHECK(nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&option) == 0);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, Callbacks::begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, Callbacks::header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, Callbacks::frame_received);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, Callbacks::data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, Callbacks::stream_closed);
  nghttp2_session_callbacks_set_send_data_callback(callbacks, Callbacks::send_data);
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, Callbacks::frame_sent);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_no_auto_window_update(option, 1);  // credit() does it
  nghttp2_option_set_max_continuations(option, kH2ContinuationsMax);
  // The library's own limit of 33 resets a second would close a busy proxy's connection; ours knows which resets are hostile.
  nghttp2_option_set_stream_reset_rate_limit(option, 1u << 30, 1u << 30);
  int made = nghttp2_session_server_new2(&session_, callbacks, this, option);
  nghttp2_session_callbacks_del(callbacks);
  nghttp2_option_del(option);
  BATON_CHECK(made == 0);
  const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options.streams_max},
                                             {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options.window_bytes},
                                             {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(header_bytes_max_)},
                                             {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
  int window = static_cast<int>(std::min<uint64_t>(uint64_t{options.window_bytes} * kH2WindowStreams, 0x7fffffff));
  BATON_CHECK(nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings)) == 0);
  BATON_CHECK(nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, window) == 0);
}

H2Session::~H2Session() {
  close_all();
  nghttp2_session_del(session_);
}

bool H2Session::feed(std::string_view bytes) {
  if (stopped_ || !broken_.empty()) return false;
  ssize_t n = nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (n < 0 && broken_.empty()) broken_ = nghttp2_strerror(static_cast<int>(n));
  if (uncredited_ > 0) nghttp2_session_consume_connection(session_, std::exchange(uncredited_, 0));
  reap();
  return broken_.empty();
}

void H2Session::gather(H2Output& out, bool copy_all) {
  output_ = &out;
  copy_all_ = copy_all;
  full_ = false;
  while (!full_ && out.bytes() < kH2SendBytes) {
    const uint8_t* data = nullptr;
    ssize_t n = nghttp2_session_mem_send(session_, &data);
    if (n < 0 && broken_.empty()) broken_ = nghttp2_strerror(static_cast<int>(n));
    if (n <= 0) break;
    out.copy(data, static_cast<size_t>(n));
  }
  output_ = nullptr;
}

void H2Session::reap() {
  for (size_t i = 0; i < drained_.size(); ++i) {
    H2Stream* s = drained_[i];
    if (s->unsent() == 0) {
      Spares::here().take_back(s->out_);
      s->out_at_ = 0;
    }
    if (!s->closed_ && owes_credit(*s)) credit(*s);
    if (s->wants_room_ && s->unsent() <= s->room_) {
      s->wants_room_ = false;
      s->on_room();
    }
  }
  drained_.clear();
  while (!closed_.empty()) {
    H2Stream* s = closed_.back();
    closed_.pop_back();
    Spares::here().take_back(s->out_);
    s->out_at_ = 0;
    s->on_closed();
  }
}

bool H2Session::done() const {
  if (!nghttp2_session_want_read(session_) && !nghttp2_session_want_write(session_)) return true;
  return last_goaway_ && streams_.empty() && !nghttp2_session_want_write(session_);
}

void H2Session::drain() {
  if (std::exchange(draining_, true)) return;
  nghttp2_submit_shutdown_notice(session_);
  nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, kDrainPing);
  host_.on_output();
}

void H2Session::respond(H2Stream& stream, std::span<const H2Field> fields, bool end) {
  if (stream.closed_ || stream.responded_) return;
  stream.responded_ = true;
  stream.finished_ = end;
  std::array<nghttp2_nv, 16> few;
  std::vector<nghttp2_nv> many;
  nghttp2_nv* nv = few.data();
  if (fields.size() > few.size()) {
    many.resize(fields.size());
    nv = many.data();
  }
  for (size_t i = 0; i < fields.size(); ++i) nv[i] = pair_of(fields[i].name, fields[i].value);
  nghttp2_data_provider provider{.source = {.ptr = &stream}, .read_callback = Callbacks::read};
  int rc = nghttp2_submit_response(session_, stream.id_, nv, fields.size(), end ? nullptr : &provider);
  if (rc != 0) reset(stream, NGHTTP2_INTERNAL_ERROR);
  host_.on_output();
}

void H2Session::write(H2Stream& stream, std::string_view head, std::span<const std::string_view> pieces) {
  if (stream.closed_ || !stream.responded_ || stream.finished_) return;
  std::string& out = stream.out_;
  if (stream.out_at_ == out.size()) {
    out.clear();
    stream.out_at_ = 0;
  } else if (stream.out_at_ > out.size() / 2 && stream.out_at_ > kH2SendBytes) {
    out.erase(0, stream.out_at_);
    stream.out_at_ = 0;
  }
  size_t more = head.size();
  for (std::string_view piece : pieces) more += piece.size();
  if (out.capacity() - out.size() < more) Spares::here().make_room(out, more);
  out += head;
  for (std::string_view piece : pieces) out += piece;
  unsent_ += more;
  resume(stream);
}

void H2Session::finish(H2Stream& stream, std::span<const H2Field> trailers) {
  if (stream.closed_ || !stream.responded_ || stream.finished_) return;
  stream.finished_ = true;
  for (const H2Field& t : trailers) stream.trailers_.emplace_back(t.name, t.value);
  resume(stream);
}

void H2Session::resume(H2Stream& stream) {
  if (std::exchange(stream.deferred_, false)) nghttp2_session_resume_data(session_, stream.id_);
  host_.on_output();
}

// A handler that answers faster than its peer takes answers must not be fed further: the peer could make us queue without end.
bool H2Session::owes_credit(const H2Stream& stream) const {
  return stream.uncredited_ >= credit_bytes_ && stream.unsent() <= kH2AnswerBytesMax;
}

void H2Session::credit(H2Stream& stream) {
  nghttp2_session_consume_stream(session_, stream.id_, std::exchange(stream.uncredited_, 0));
  host_.on_output();
}

void H2Session::reset(H2Stream& stream, uint32_t error) {
  if (stream.closed_) return;
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream.id_, error);
  host_.on_output();
}

void H2Session::stop(std::string_view why) {
  if (std::exchange(stopped_, true)) return;
  broken_ = why;
  nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM);
  host_.on_output();
}

// The stream leaves the session; its on_closed waits for reap(), because what is being sent may lie in it.
void H2Session::close(H2Stream& stream) {
  if (std::exchange(stream.closed_, true)) return;
  unsent_ -= stream.unsent();
  H2Stream* last = streams_.back();
  last->index_ = stream.index_;
  streams_[stream.index_] = last;
  streams_.pop_back();
  nghttp2_session_set_stream_user_data(session_, stream.id_, nullptr);
  closed_.push_back(&stream);
}

void H2Session::close_all() {
  while (!streams_.empty()) close(*streams_.back());
  reap();
}

}  // namespace baton::net
