// Asks the service this page came from.

export class Problem extends Error {
  // parameter: the field at fault, as the service names it; retryAfter: seconds, or null.
  constructor(message, { status = 0, parameter = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, parameter, retryAfter });
  }
}

// The API key, where the service asks for one.
export const session = { key: "" };

export const address = (path) => new URL(path, document.baseURI).href;

export async function ask(path, body, accept = "application/json") {
  let response;
  try {
    response = await fetch(address(path), {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept,
        ...(session.key && { authorization: `Bearer ${session.key}` }),
      },
      body: JSON.stringify(body),
    });
  } catch (error) {
    throw new Problem(error.message);
  }
  if (response.ok) return response;
  let error = {};
  try {
    ({ error } = await response.json());
  } catch {
    // a proxy's page: the status alone is told
  }
  throw new Problem(error.message ?? response.statusText, {
    status: response.status,
    parameter: error.param,
    retryAfter: response.headers.get("retry-after"),
  });
}
