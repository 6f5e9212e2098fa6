#include "graft/data/images/encode.h"

#include <vips/vips.h>

#include <memory>

#include "graft/core/error.h"
#include "graft/data/images/decode.h"

namespace graft::data {

std::string encode_png(const Image& image) {
  start_vips();
  const std::unique_ptr<VipsImage, void (*)(void*)> view(
      vips_image_new_from_memory(image.samples.data(), image.samples.size(), static_cast<int>(image.width),
                                 static_cast<int>(image.height), static_cast<int>(image.bands), VIPS_FORMAT_UCHAR),
      g_object_unref);
  GRAFT_ASSERT(view, "{}", vips_error_buffer());
  view->Type = image.bands == 1 ? VIPS_INTERPRETATION_B_W : VIPS_INTERPRETATION_sRGB;
  void* bytes = nullptr;
  size_t size = 0;
  GRAFT_ASSERT(vips_pngsave_buffer(view.get(), &bytes, &size, nullptr) == 0, "{}", vips_error_buffer());
  const std::unique_ptr<void, void (*)(void*)> guard(bytes, g_free);
  return {static_cast<const char*>(bytes), size};
}

}  // namespace graft::data
