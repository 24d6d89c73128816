class RobustAPIClient {
  constructor(apiBase = 'http://localhost:3000', maxRetries = 3) {
    this.apiBase = apiBase;
    this.maxRetries = maxRetries;
  }

  async makeRequest(url, options = {}, retries = 0) {
    try {
      const response = await fetch(url, {
        ...options,
        headers: {
          'Content-Type': 'application/json',
          'X-Request-ID': `req_${Date.now()}_${Math.random()}`,
          ...options.headers
        }
      });

      if (response.status === 429) {
        // Rate limited - wait and retry
        if (retries < this.maxRetries) {
          const delay = Math.pow(2, retries) * 1000; // Exponential backoff
          console.log(`Rate limited, retrying in ${delay}ms...`);
          await new Promise(resolve => setTimeout(resolve, delay));
          return this.makeRequest(url, options, retries + 1);
        }
        throw new Error('Rate limit exceeded, max retries reached');
      }

      if (!response.ok) {
        const error = await response.json();
        throw new Error(`HTTP ${response.status}: ${error.error?.message || response.statusText}`);
      }

      return await response.json();
    } catch (error) {
      if (retries < this.maxRetries && this.isRetryableError(error)) {
        const delay = Math.pow(2, retries) * 1000;
        console.log(`Request failed, retrying in ${delay}ms...`, error.message);
        await new Promise(resolve => setTimeout(resolve, delay));
        return this.makeRequest(url, options, retries + 1);
      }
      throw error;
    }
  }

  isRetryableError(error) {
    return error.name === 'TypeError' || // Network errors
           error.message.includes('timeout') ||
           error.message.includes('ECONNRESET');
  }

  async createInstance(config) {
    return this.makeRequest(`${this.apiBase}/api/instances`, {
      method: 'POST',
      body: JSON.stringify(config)
    });
  }

  async getInstance(instanceId) {
    return this.makeRequest(`${this.apiBase}/api/instances/${instanceId}`);
  }
}
