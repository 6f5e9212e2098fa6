// The records of a zip archive that are stored without compression, with the zip64 extensions, as torch.save writes them.
// Format: PKWARE APPNOTE 6.3.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace graft::io {

/// Names and contents, as views into `bytes`. `where` begins every message. Throws Kind::model: damaged or cut off,
/// a compressed or encrypted record.
std::map<std::string, std::string_view> zip_records(std::string_view bytes, const std::string& where);

}  // namespace graft::io
