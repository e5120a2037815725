"""An HTTP/3 client that is not ours: libcurl with ngtcp2, as curl_cffi brings it. Prints one JSON object.

    curl_client.py CERT KEY CA IP:PORT NAME PATH
"""
import json
import sys

from curl_cffi import CurlHttpVersion, CurlOpt, requests

certificate, key, ca, to, name, path = sys.argv[1:]
host, port = to.rsplit(":", 1)
answer = requests.get(
    f"https://{name}:{port}{path}", cert=(certificate, key), verify=ca, timeout=30,
    http_version=CurlHttpVersion.V3ONLY, curl_options={CurlOpt.RESOLVE: [f"{name}:{port}:{host}"]})
print(json.dumps({"status": answer.status_code, "text": answer.text[:1000], "bytes": len(answer.content),
                  "version": answer.http_version}))
