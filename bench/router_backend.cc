// An engine that costs nothing: one epoll loop that answers as a vLLM server would, for bench/router.py and
// tests/e2e/test_envoy.py.
//   router_backend [--chunks 100] [--tick-us 1000]     prints "port N"
// POST: JSON that says what arrived (body bytes, a checksum, the routing headers); with "stream":true N server-sent events, one a
// tick; with "do_remote_decode":true kv_transfer_params as a prefill worker gives them. GET /metrics, /health, /v1/models.
// A program of its own, without the project's libraries, so that it measures them and not itself.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

namespace {

int g_port = 0, g_chunks = 100;

struct Client {
  int fd = -1;
  std::string in, out;
  int chunks_left = 0;
};

std::string_view header(std::string_view head, std::string_view name) {
  for (size_t at = head.find("\r\n"); at != std::string_view::npos; at = head.find("\r\n", at + 2)) {
    std::string_view line = head.substr(at + 2, head.find("\r\n", at + 2) - at - 2);
    if (line.size() > name.size() && line[name.size()] == ':' && strncasecmp(line.data(), name.data(), name.size()) == 0) {
      line.remove_prefix(name.size() + 1);
      while (line.starts_with(' ')) line.remove_prefix(1);
      return line;
    }
  }
  return {};
}

// FNV-1a, so that a test sees whether the body came through whole.
uint32_t checksum(std::string_view bytes) {
  uint32_t h = 2166136261u;
  for (unsigned char c : bytes) h = (h ^ c) * 16777619u;
  return h;
}

void tick(Client& c) {
  if (c.chunks_left == 0) return;
  constexpr std::string_view event =
      "data: "
      "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\" "
      "word\","
      "\"logprobs\":null,\"finish_reason\":null}]}\n\n";
  constexpr std::string_view done = "data: [DONE]\n\n";
  const std::string_view data = --c.chunks_left == 0 ? done : event;
  char size[16];
  const int n = std::snprintf(size, sizeof size, "%zx\r\n", data.size());
  c.out.append(size, static_cast<size_t>(n)).append(data).append("\r\n");
  if (c.chunks_left == 0) c.out += "0\r\n\r\n";
}

void respond(Client& c, std::string_view type, std::string_view body) {
  char head[256];
  const int n = std::snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\ncontent-type: %.*s\r\ncontent-length: %zu\r\n\r\n",
                              static_cast<int>(type.size()), type.data(), body.size());
  c.out.append(head, static_cast<size_t>(n)).append(body);
}

void post(Client& c, std::string_view head, std::string_view body) {
  // Where clients put it: near the end, or at the start.
  const std::string_view tail = body.substr(body.size() > 512 ? body.size() - 512 : 0), start = body.substr(0, 512);
  auto says = [&](std::string_view text) {
    return tail.find(text) != std::string_view::npos || start.find(text) != std::string_view::npos;
  };
  if (says("\"stream\":true") || says("\"stream\": true")) {
    c.out += "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    c.chunks_left = g_chunks;
    return tick(c);  // the first at once: time to it is a figure
  }
  const std::string_view prefill = header(head, "x-prefiller-host-port"), id = header(head, "x-request-id");
  const bool remote = says("\"do_remote_decode\":true") || says("\"do_remote_decode\": true");
  char text[1024];
  const int n = std::snprintf(
      text, sizeof text,
      "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\" "
      "ok\",\"finish_reason\":\"length\"}],"
      "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4},\"port\":%d,\"bytes\":%zu,\"checksum\":%u,"
      "\"prefill\":\"%.*s\",\"request_id\":\"%.*s\"%s}",
      g_port, body.size(), checksum(body), static_cast<int>(prefill.size()), prefill.data(), static_cast<int>(id.size()),
      id.data(),
      remote ? ",\"kv_transfer_params\":{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_block_ids\":[[1]],"
               "\"remote_engine_id\":\"e\",\"remote_host\":\"127.0.0.1\",\"remote_port\":1}"
             : "");
  respond(c, "application/json", {text, static_cast<size_t>(n)});
}

void get(Client& c, std::string_view path) {
  if (path.starts_with("/metrics")) {
    return respond(c, "text/plain; version=0.0.4",
                   "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} "
                   "0.0\nvllm:num_requests_running{engine=\"0\",model_name=\"m\"} 1.0\n"
                   "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.1\n"
                   "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"10000\",engine=\"0\"} 1.0\n");
  }
  if (path.starts_with("/v1/models"))
    return respond(c, "application/json", R"({"object":"list","data":[{"id":"m","object":"model"}]})");
  respond(c, "text/plain", "ok");
}

// Takes one request off c.in; false if there is no whole one yet.
bool take(Client& c) {
  const size_t end = c.in.find("\r\n\r\n");
  if (end == std::string::npos) return false;
  const std::string_view head = std::string_view(c.in).substr(0, end + 2);
  size_t used = end + 4;
  std::string unchunked;
  std::string_view body;
  if (header(head, "transfer-encoding") == "chunked") {
    for (;;) {
      const size_t line = c.in.find("\r\n", used);
      if (line == std::string::npos) return false;
      const size_t size = std::strtoul(c.in.c_str() + used, nullptr, 16);
      if (c.in.size() < line + 2 + size + 2) return false;
      unchunked.append(c.in, line + 2, size);
      used = line + 2 + size + 2;
      if (size == 0) break;
    }
    body = unchunked;
  } else if (const std::string_view length = header(head, "content-length"); !length.empty()) {
    const size_t size = std::strtoul(std::string(length).c_str(), nullptr, 10);
    if (c.in.size() < used + size) {
      c.in.reserve(used + size);
      return false;
    }
    body = std::string_view(c.in).substr(used, size);
    used += size;
  }
  const std::string_view target = head.substr(head.find(' ') + 1);
  head.starts_with("POST ") ? post(c, head, body) : get(c, target);
  c.in.erase(0, used);
  return true;
}

bool flush(Client& c) {
  while (!c.out.empty()) {
    const ssize_t n = ::send(c.fd, c.out.data(), c.out.size(), MSG_NOSIGNAL);
    if (n <= 0) return errno == EAGAIN;
    c.out.erase(0, static_cast<size_t>(n));
  }
  return true;
}

int listen_anywhere() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET, at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&at), size) != 0 || ::listen(fd, 4096) != 0) std::exit(1);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size);
  g_port = ntohs(at.sin_port);
  return fd;
}

void watch(int epoll, int fd, uint32_t events) {
  epoll_event e{};
  e.events = events, e.data.fd = fd;
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
}

bool serve(Client& c) {
  char buffer[1 << 16];
  for (;;) {
    const ssize_t n = ::recv(c.fd, buffer, sizeof buffer, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) return false;
    if (n < 0) break;
    c.in.append(buffer, static_cast<size_t>(n));
  }
  while (c.chunks_left == 0 && take(c)) {
  }
  return flush(c);
}

}  // namespace

int main(int argc, char** argv) {
  long tick_us = 1000;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::string_view(argv[i]) == "--chunks") g_chunks = std::atoi(argv[i + 1]);
    if (std::string_view(argv[i]) == "--tick-us") tick_us = std::atol(argv[i + 1]);
  }
  const int listener = listen_anywhere(), epoll = ::epoll_create1(0), timer = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  const itimerspec every{{tick_us / 1'000'000, tick_us % 1'000'000 * 1000}, {tick_us / 1'000'000, tick_us % 1'000'000 * 1000}};
  ::timerfd_settime(timer, 0, &every, nullptr);
  watch(epoll, listener, EPOLLIN);
  watch(epoll, timer, EPOLLIN);
  std::printf("port %d\n", g_port);
  std::fflush(stdout);
  std::unordered_map<int, std::unique_ptr<Client>> clients;
  epoll_event events[256];
  for (;;) {
    const int n = ::epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < n; ++i) {
      const int fd = events[i].data.fd;
      if (fd == timer) {
        uint64_t ticks;
        while (::read(timer, &ticks, sizeof ticks) > 0) {
        }
        for (auto& [_, c] : clients) {
          if (c->chunks_left > 0) tick(*c), flush(*c);
        }
      } else if (fd == listener) {
        for (int s; (s = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) {
          const int one = 1;
          ::setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
          clients[s] = std::make_unique<Client>(Client{s, {}, {}, 0});
          watch(epoll, s, EPOLLIN | EPOLLOUT | EPOLLET);
        }
      } else if (auto it = clients.find(fd); it != clients.end() && !serve(*it->second)) {
        ::close(fd);
        clients.erase(it);
      }
    }
  }
}
