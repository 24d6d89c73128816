const API_BASE = 'http://localhost:3000';

async function createAndMonitorInstance() {
  try {
    // Create instance
    const createResponse = await fetch(`${API_BASE}/api/instances`, {
      method: 'POST',
      headers: { 
        'Content-Type': 'application/json',
        'X-Request-ID': `req_${Date.now()}_${Math.random()}`
      },
      body: JSON.stringify({
        name: 'my-gpu-instance',
        productName: 'RTX 4090 24GB',
        templateId: 'pytorch-jupyter',
        gpuNum: 1,
        rootfsSize: 60,
        region: 'CN-HK-01',
        webhookUrl: 'https://your-app.com/webhook'
      })
    });

    if (!createResponse.ok) {
      const error = await createResponse.json();
      throw new Error(`Failed to create instance: ${error.error.message}`);
    }

    const { instanceId } = await createResponse.json();
    console.log(`Instance created: ${instanceId}`);

    // Monitor until ready
    const instance = await waitForInstanceReady(instanceId);
    console.log('Instance ready:', instance.connectionDetails);
    
    return instance;
  } catch (error) {
    console.error('Error:', error.message);
    throw error;
  }
}

async function waitForInstanceReady(instanceId, maxWaitTime = 600000) {
  const startTime = Date.now();
  let delay = 2000; // Start with 2 seconds
  
  while (Date.now() - startTime < maxWaitTime) {
    const response = await fetch(`${API_BASE}/api/instances/${instanceId}`);
    const instance = await response.json();
    
    console.log(`Instance ${instanceId} status: ${instance.status}`);
    
    if (instance.status === 'ready') {
      return instance;
    }
    
    if (instance.status === 'failed') {
      throw new Error('Instance failed to start');
    }
    
    await new Promise(resolve => setTimeout(resolve, delay));
    delay = Math.min(delay * 1.5, 30000); // Max 30 seconds
  }
  
  throw new Error('Timeout waiting for instance to be ready');
}

// Usage
createAndMonitorInstance()
  .then(instance => console.log('Success:', instance))
  .catch(error => console.error('Failed:', error));
