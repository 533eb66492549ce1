#include "actions/mime.h"

struct known {
    const char *extension;
    struct ag_span type;
};

/* Sorted by extension. Types: the IANA registry; where it has none, what browsers expect. text/xml and
 * the like carry a charset because RFC 7303 and RFC 2046 would let clients guess; JSON never does. */
static const struct known table[] = {
    {"3g2", AG_SPAN_INIT("video/3gpp2")},
    {"3gp", AG_SPAN_INIT("video/3gpp")},
    {"7z", AG_SPAN_INIT("application/x-7z-compressed")},
    {"aac", AG_SPAN_INIT("audio/aac")},
    {"ai", AG_SPAN_INIT("application/postscript")},
    {"aif", AG_SPAN_INIT("audio/aiff")},
    {"aiff", AG_SPAN_INIT("audio/aiff")},
    {"apk", AG_SPAN_INIT("application/vnd.android.package-archive")},
    {"apng", AG_SPAN_INIT("image/apng")},
    {"arrow", AG_SPAN_INIT("application/vnd.apache.arrow.file")},
    {"asc", AG_SPAN_INIT("application/pgp-signature")},
    {"asf", AG_SPAN_INIT("video/x-ms-asf")},
    {"atom", AG_SPAN_INIT("application/atom+xml")},
    {"avi", AG_SPAN_INIT("video/x-msvideo")},
    {"avif", AG_SPAN_INIT("image/avif")},
    {"bin", AG_SPAN_INIT("application/octet-stream")},
    {"bmp", AG_SPAN_INIT("image/bmp")},
    {"br", AG_SPAN_INIT("application/x-br")},
    {"bz2", AG_SPAN_INIT("application/x-bzip2")},
    {"c", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"cer", AG_SPAN_INIT("application/x-x509-ca-cert")},
    {"cfg", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"cjs", AG_SPAN_INIT("text/javascript; charset=utf-8")},
    {"conf", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"cpp", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"crl", AG_SPAN_INIT("application/pkix-crl")},
    {"crt", AG_SPAN_INIT("application/x-x509-ca-cert")},
    {"crx", AG_SPAN_INIT("application/x-chrome-extension")},
    {"css", AG_SPAN_INIT("text/css; charset=utf-8")},
    {"csv", AG_SPAN_INIT("text/csv; charset=utf-8")},
    {"cur", AG_SPAN_INIT("image/x-icon")},
    {"dat", AG_SPAN_INIT("application/octet-stream")},
    {"db", AG_SPAN_INIT("application/vnd.sqlite3")},
    {"dds", AG_SPAN_INIT("image/vnd.ms-dds")},
    {"deb", AG_SPAN_INIT("application/vnd.debian.binary-package")},
    {"der", AG_SPAN_INIT("application/x-x509-ca-cert")},
    {"dll", AG_SPAN_INIT("application/octet-stream")},
    {"dmg", AG_SPAN_INIT("application/x-apple-diskimage")},
    {"doc", AG_SPAN_INIT("application/msword")},
    {"docx",
     AG_SPAN_INIT("application/vnd.openxmlformats-officedocument.wordprocessingml.document")},
    {"ear", AG_SPAN_INIT("application/java-archive")},
    {"eot", AG_SPAN_INIT("application/vnd.ms-fontobject")},
    {"eps", AG_SPAN_INIT("application/postscript")},
    {"epub", AG_SPAN_INIT("application/epub+zip")},
    {"exe", AG_SPAN_INIT("application/octet-stream")},
    {"flac", AG_SPAN_INIT("audio/flac")},
    {"flv", AG_SPAN_INIT("video/x-flv")},
    {"geojson", AG_SPAN_INIT("application/geo+json")},
    {"gif", AG_SPAN_INIT("image/gif")},
    {"glb", AG_SPAN_INIT("model/gltf-binary")},
    {"gltf", AG_SPAN_INIT("model/gltf+json")},
    {"go", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"gpx", AG_SPAN_INIT("application/gpx+xml")},
    {"gz", AG_SPAN_INIT("application/gzip")},
    {"h", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"har", AG_SPAN_INIT("application/json")},
    {"heic", AG_SPAN_INIT("image/heic")},
    {"heif", AG_SPAN_INIT("image/heif")},
    {"hpp", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"htm", AG_SPAN_INIT("text/html; charset=utf-8")},
    {"html", AG_SPAN_INIT("text/html; charset=utf-8")},
    {"ico", AG_SPAN_INIT("image/x-icon")},
    {"ics", AG_SPAN_INIT("text/calendar; charset=utf-8")},
    {"img", AG_SPAN_INIT("application/octet-stream")},
    {"ini", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"iso", AG_SPAN_INIT("application/octet-stream")},
    {"jar", AG_SPAN_INIT("application/java-archive")},
    {"java", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"jfif", AG_SPAN_INIT("image/jpeg")},
    {"jp2", AG_SPAN_INIT("image/jp2")},
    {"jpeg", AG_SPAN_INIT("image/jpeg")},
    {"jpg", AG_SPAN_INIT("image/jpeg")},
    {"js", AG_SPAN_INIT("text/javascript; charset=utf-8")},
    {"json", AG_SPAN_INIT("application/json")},
    {"json5", AG_SPAN_INIT("application/json5")},
    {"jsonl", AG_SPAN_INIT("application/x-ndjson")},
    {"jsonld", AG_SPAN_INIT("application/ld+json")},
    {"jsx", AG_SPAN_INIT("text/javascript; charset=utf-8")},
    {"jxl", AG_SPAN_INIT("image/jxl")},
    {"kar", AG_SPAN_INIT("audio/midi")},
    {"kml", AG_SPAN_INIT("application/vnd.google-earth.kml+xml")},
    {"kmz", AG_SPAN_INIT("application/vnd.google-earth.kmz")},
    {"ktx2", AG_SPAN_INIT("image/ktx2")},
    {"log", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"m3u", AG_SPAN_INIT("audio/mpegurl")},
    {"m3u8", AG_SPAN_INIT("application/vnd.apple.mpegurl")},
    {"m4a", AG_SPAN_INIT("audio/mp4")},
    {"m4s", AG_SPAN_INIT("video/iso.segment")},
    {"m4v", AG_SPAN_INIT("video/mp4")},
    {"map", AG_SPAN_INIT("application/json")},
    {"markdown", AG_SPAN_INIT("text/markdown; charset=utf-8")},
    {"mathml", AG_SPAN_INIT("application/mathml+xml")},
    {"md", AG_SPAN_INIT("text/markdown; charset=utf-8")},
    {"mid", AG_SPAN_INIT("audio/midi")},
    {"midi", AG_SPAN_INIT("audio/midi")},
    {"mjs", AG_SPAN_INIT("text/javascript; charset=utf-8")},
    {"mkv", AG_SPAN_INIT("video/x-matroska")},
    {"mobi", AG_SPAN_INIT("application/x-mobipocket-ebook")},
    {"mov", AG_SPAN_INIT("video/quicktime")},
    {"mp3", AG_SPAN_INIT("audio/mpeg")},
    {"mp4", AG_SPAN_INIT("video/mp4")},
    {"mpd", AG_SPAN_INIT("application/dash+xml")},
    {"mpeg", AG_SPAN_INIT("video/mpeg")},
    {"mpg", AG_SPAN_INIT("video/mpeg")},
    {"msi", AG_SPAN_INIT("application/x-msdownload")},
    {"mtl", AG_SPAN_INIT("model/mtl")},
    {"ndjson", AG_SPAN_INIT("application/x-ndjson")},
    {"obj", AG_SPAN_INIT("model/obj")},
    {"odg", AG_SPAN_INIT("application/vnd.oasis.opendocument.graphics")},
    {"odp", AG_SPAN_INIT("application/vnd.oasis.opendocument.presentation")},
    {"ods", AG_SPAN_INIT("application/vnd.oasis.opendocument.spreadsheet")},
    {"odt", AG_SPAN_INIT("application/vnd.oasis.opendocument.text")},
    {"oga", AG_SPAN_INIT("audio/ogg")},
    {"ogg", AG_SPAN_INIT("audio/ogg")},
    {"ogv", AG_SPAN_INIT("video/ogg")},
    {"opus", AG_SPAN_INIT("audio/opus")},
    {"otf", AG_SPAN_INIT("font/otf")},
    {"p12", AG_SPAN_INIT("application/x-pkcs12")},
    {"p7b", AG_SPAN_INIT("application/x-pkcs7-certificates")},
    {"parquet", AG_SPAN_INIT("application/vnd.apache.parquet")},
    {"pbf", AG_SPAN_INIT("application/x-protobuf")},
    {"pdf", AG_SPAN_INIT("application/pdf")},
    {"pem", AG_SPAN_INIT("application/x-pem-file")},
    {"pfx", AG_SPAN_INIT("application/x-pkcs12")},
    {"png", AG_SPAN_INIT("image/png")},
    {"ppt", AG_SPAN_INIT("application/vnd.ms-powerpoint")},
    {"pptx",
     AG_SPAN_INIT("application/vnd.openxmlformats-officedocument.presentationml.presentation")},
    {"ps", AG_SPAN_INIT("application/postscript")},
    {"psd", AG_SPAN_INIT("image/vnd.adobe.photoshop")},
    {"py", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"qt", AG_SPAN_INIT("video/quicktime")},
    {"rar", AG_SPAN_INIT("application/vnd.rar")},
    {"rdf", AG_SPAN_INIT("application/rdf+xml")},
    {"rng", AG_SPAN_INIT("text/xml; charset=utf-8")},
    {"rpm", AG_SPAN_INIT("application/x-rpm")},
    {"rs", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"rss", AG_SPAN_INIT("application/rss+xml")},
    {"rtf", AG_SPAN_INIT("application/rtf")},
    {"sh", AG_SPAN_INIT("application/x-sh")},
    {"shtml", AG_SPAN_INIT("text/html; charset=utf-8")},
    {"sig", AG_SPAN_INIT("application/pgp-signature")},
    {"sql", AG_SPAN_INIT("application/sql")},
    {"sqlite", AG_SPAN_INIT("application/vnd.sqlite3")},
    {"stl", AG_SPAN_INIT("model/stl")},
    {"svg", AG_SPAN_INIT("image/svg+xml")},
    {"swf", AG_SPAN_INIT("application/x-shockwave-flash")},
    {"tar", AG_SPAN_INIT("application/x-tar")},
    {"text", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"tgz", AG_SPAN_INIT("application/gzip")},
    {"tif", AG_SPAN_INIT("image/tiff")},
    {"tiff", AG_SPAN_INIT("image/tiff")},
    {"toml", AG_SPAN_INIT("application/toml")},
    {"topojson", AG_SPAN_INIT("application/json")},
    {"torrent", AG_SPAN_INIT("application/x-bittorrent")},
    {"ts", AG_SPAN_INIT("video/mp2t")},
    {"tsv", AG_SPAN_INIT("text/tab-separated-values; charset=utf-8")},
    {"tsx", AG_SPAN_INIT("text/javascript; charset=utf-8")},
    {"ttc", AG_SPAN_INIT("font/collection")},
    {"ttf", AG_SPAN_INIT("font/ttf")},
    {"txt", AG_SPAN_INIT("text/plain; charset=utf-8")},
    {"usdz", AG_SPAN_INIT("model/vnd.usdz+zip")},
    {"vcf", AG_SPAN_INIT("text/vcard; charset=utf-8")},
    {"vtt", AG_SPAN_INIT("text/vtt; charset=utf-8")},
    {"war", AG_SPAN_INIT("application/java-archive")},
    {"wasm", AG_SPAN_INIT("application/wasm")},
    {"wav", AG_SPAN_INIT("audio/wav")},
    {"wbmp", AG_SPAN_INIT("image/vnd.wap.wbmp")},
    {"weba", AG_SPAN_INIT("audio/webm")},
    {"webm", AG_SPAN_INIT("video/webm")},
    {"webmanifest", AG_SPAN_INIT("application/manifest+json")},
    {"webp", AG_SPAN_INIT("image/webp")},
    {"wmv", AG_SPAN_INIT("video/x-ms-wmv")},
    {"woff", AG_SPAN_INIT("font/woff")},
    {"woff2", AG_SPAN_INIT("font/woff2")},
    {"xht", AG_SPAN_INIT("application/xhtml+xml")},
    {"xhtml", AG_SPAN_INIT("application/xhtml+xml")},
    {"xls", AG_SPAN_INIT("application/vnd.ms-excel")},
    {"xlsx", AG_SPAN_INIT("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet")},
    {"xml", AG_SPAN_INIT("text/xml; charset=utf-8")},
    {"xpi", AG_SPAN_INIT("application/x-xpinstall")},
    {"xsd", AG_SPAN_INIT("text/xml; charset=utf-8")},
    {"xsl", AG_SPAN_INIT("text/xml; charset=utf-8")},
    {"xspf", AG_SPAN_INIT("application/xspf+xml")},
    {"xz", AG_SPAN_INIT("application/x-xz")},
    {"yaml", AG_SPAN_INIT("application/yaml")},
    {"yml", AG_SPAN_INIT("application/yaml")},
    {"zip", AG_SPAN_INIT("application/zip")},
    {"zst", AG_SPAN_INIT("application/zstd")},
};

struct ag_span ag_mime_extension(struct ag_span name)
{
    for (size_t i = name.len; i > 0 && name.ptr[i - 1] != '/'; i--) {
        if (name.ptr[i - 1] == '.') {
            bool first = i == 1 || name.ptr[i - 2] == '/';
            return first ? ag_span(NULL, 0) : ag_span_sub(name, i, name.len);
        }
    }
    return ag_span(NULL, 0);
}

static const struct ag_span *find_known(const char *extension)
{
    size_t from = 0, to = AG_COUNT(table);

    while (from < to) {
        size_t middle = from + (to - from) / 2;
        int order = strcmp(extension, table[middle].extension);
        if (order == 0) {
            return &table[middle].type;
        }
        if (order < 0) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    return NULL;
}

struct ag_span ag_mime_type(struct ag_span name, const struct ag_mime_table *overrides)
{
    const struct ag_span unknown = AG_SPAN("application/octet-stream");
    struct ag_span extension = ag_mime_extension(name);
    char lower[AG_MIME_EXTENSION_MAX + 1];
    const struct ag_span *type;

    if (extension.len == 0 || extension.len > AG_MIME_EXTENSION_MAX) {
        return unknown;
    }
    for (size_t i = 0; i < extension.len; i++) {
        lower[i] = (char)ag_ascii_lower(extension.ptr[i]);
    }
    lower[extension.len] = 0;
    extension = ag_span(lower, extension.len);
    for (size_t i = 0; overrides && i < overrides->count; i++) {
        if (ag_span_eq(overrides->v[i].extension, extension)) {
            return overrides->v[i].type;
        }
    }
    if (strlen(lower) != extension.len) { /* a NUL in the name */
        return unknown;
    }
    type = find_known(lower);
    return type ? *type : unknown;
}
