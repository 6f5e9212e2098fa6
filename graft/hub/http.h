// One HTTP request at a time, by libcurl: proxies, TLS and redirects are its own; the token stays with the first host.
#pragma once

#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>

#include "graft/core/error.h"
#include "graft/hub/settings.h"

namespace graft::hub {

struct Response {
  long status = 0;
  std::map<std::string, std::string> headers;  // lower-case names; of the last answer, and x-... of redirects
  std::string body;                            // what `sink` did not take

  std::string header(const std::string& name) const;
};

struct Request {
  std::string url;
  std::string token;  // sent to the host of `url` only: not where a redirect to another host leads
  uint64_t from = 0;  // the first byte wanted (a Range header when it is not 0)
  /// Takes the pieces of a 200 or 206 answer; false ends the transfer. Without one they are collected in `body`.
  std::function<bool(const Response& answer, std::string_view piece)> sink;
  std::function<bool()> stopped;  // asked a few times a second; true ends the transfer
};

/// No answer, or one that broke off: worth another attempt.
struct Dropped : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// `stopped` or `sink` ended the transfer.
struct Stopped : std::exception {};

/// Nobody answers: no connection, or none allowed (HF_HUB_OFFLINE). The next request would fare no better.
struct Unreachable : Error {
  explicit Unreachable(const std::string& sentence) : Error(Kind::network, sentence) {}
};

/// One attempt. Throws Dropped, Stopped, and Kind::network for what no second attempt mends (a URL, a certificate).
Response send_once(const Request& request, const Settings& settings);

/// The same with attempts after drops, 429 and 5xx, as Retry-After says or in growing pauses. The last answer, whatever
/// its status. Throws Unreachable when no answer came at all.
Response send(const Request& request, const Settings& settings);

/// Seconds to wait before attempt `attempt` (from 1 on): Retry-After or RateLimit of the answer, else growing pauses.
double pause_before(int attempt, const Response* answer, const Settings& settings);
/// 429 and 5xx: the server may answer otherwise in a moment.
bool is_passing(long status);
/// Sleeps, in small pieces. Throws Stopped when `stopped` says so.
void sleep_unless(double seconds, const std::function<bool()>& stopped);

/// "huggingface.co" of a URL: all of it that messages show (what follows may hold a signature).
std::string host_of(const std::string& url);
/// Percent-encoded as a part of a path; `keep_slash`: a path with its slashes.
std::string encoded(const std::string& text, bool keep_slash);

}  // namespace graft::hub
